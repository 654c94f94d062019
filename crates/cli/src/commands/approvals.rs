//! `legwork approvals`: what waits for a person's yes.

use anyhow::Result;
use legwork_api::{
    Approval, ApprovalId, ApprovalQuery, ApprovalState, Approve, Client, Deny, GetApproval, ListApprovals,
    Mark, No, NoQuery, Received, Yes, shown,
};
use legwork_base::clock::now_ms;

use super::lists::{age, cell, seconds, table, visible};
use crate::args::{ApprovalsArgs, ApprovalsCommand, ApprovalsListArgs};
use crate::client;

pub(crate) async fn run(args: ApprovalsArgs) -> Result<u8> {
    match args.command {
        None => list(args.list).await,
        Some(ApprovalsCommand::List(args)) => list(args).await,
        Some(ApprovalsCommand::Show { id, json, hub }) => {
            let approval = client::from_args(&hub)?.ask::<GetApproval>(&ApprovalId(id)).await?;
            print(&approval, json)
        }
        Some(ApprovalsCommand::Approve { id, digest, note, for_time, edit, json, hub }) => {
            let for_s = for_time.as_deref().map(seconds).transpose()?;
            let yes = Yes { digest, note, for_s, command: edit };
            let client = client::from_args(&hub)?;
            say(&client.send::<Approve>(&ApprovalId(id), &NoQuery {}, &yes).await?, json)
        }
        Some(ApprovalsCommand::Deny { id, note, json, hub }) => {
            let client = client::from_args(&hub)?;
            say(&client.send::<Deny>(&ApprovalId(id), &NoQuery {}, &No { note }).await?, json)
        }
    }
}

async fn list(args: ApprovalsListArgs) -> Result<u8> {
    let client = client::from_args(&args.hub)?;
    let items = wanted(&client, args.all, args.limit).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&items)?);
        return Ok(0);
    }
    if items.is_empty() {
        println!("nothing waits for a person's yes{}", if args.all { ", and nothing did" } else { "" });
    }
    let now = now_ms();
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|a| {
            let left = match a.state.known() {
                Some(ApprovalState::Waiting) => age(a.expires_at_ms.saturating_sub(now) / 1000),
                _ => String::from("-"),
            };
            let line = shown(&a.command).replace("\\n\n", "<U+000A>");
            let on = a.runner.as_str();
            let cells = [a.id.as_str(), a.state.as_str(), &left, on, &a.asked_by].map(cell).to_vec();
            [cells, vec![line]].concat()
        })
        .collect();
    table(&["APPROVAL", "STATE", "LEFT", "ON", "ASKED BY", "WOULD RUN"], &rows);
    Ok(0)
}

/// The newest that are wanted, over as many pages as it takes.
async fn wanted(client: &Client, all: bool, limit: u32) -> Result<Vec<Received<Approval>>> {
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let state = (!all).then_some(ApprovalState::Waiting.into());
    let mut query = ApprovalQuery { state, limit: Some(limit.min(500)), ..ApprovalQuery::default() };
    let mut items = Vec::new();
    loop {
        let page = client.list::<ListApprovals>(&query).await?;
        query.cursor.clone_from(&page.next);
        items.extend(page.into_items());
        if items.len() >= most || query.cursor.is_none() {
            items.truncate(most);
            return Ok(items);
        }
    }
}

/// What was said, and what that comes to.
fn say(approval: &Received<Approval>, json: bool) -> Result<u8> {
    if json {
        return print(approval, true);
    }
    let word = match approval.state.known() {
        Some(ApprovalState::Waiting) => "noted; the rule wants another person's yes as well".to_owned(),
        Some(ApprovalState::Approved) => format!("approved: {} runs it", visible(&approval.runner)),
        Some(ApprovalState::Edited) => {
            "your line stands for it and is judged anew; if it needs a yes, that is another person's"
                .to_owned()
        }
        _ => visible(approval.state.as_str()),
    };
    println!("{word}");
    Ok(0)
}

fn print(approval: &Received<Approval>, json: bool) -> Result<u8> {
    if json {
        println!("{}", serde_json::to_string_pretty(&approval)?);
        return Ok(0);
    }
    let a: &Approval = approval;
    let now = now_ms();
    println!("{}  {}", visible(a.id.as_str()), visible(a.state.as_str()));
    println!();
    for line in shown(&a.command).lines() {
        println!("    {line}");
    }
    println!();
    for mark in a.shown.iter().filter_map(|piece| piece.mark.as_ref()) {
        let Mark { code, why } = mark;
        println!("look     <{}>: {}", visible(code), visible(why));
    }
    if a.line != a.command {
        println!("asked    {}", shown(&a.line).replace("\\n\n", "<U+000A>"));
    }
    let folder = if a.workdir.is_empty() { "the workspace".to_owned() } else { visible(&a.workdir) };
    println!("on       {} in {folder}, for at most {} s", visible(&a.runner), a.timeout_s);
    println!("who      {} (task {})", visible(&a.asked_by), visible(a.task.as_str()));
    if let Some(reason) = &a.reason {
        println!("why      {}", visible(reason));
    }
    println!("rule     '{}' asks about: {}", visible(&a.rule), visible(&a.part));
    if let Some(refused) = &a.refused {
        println!("again    {}", visible(refused));
    }
    println!("digest   {}", visible(&a.digest));
    for vote in &a.votes {
        println!("said     {}: {}", visible(&vote.by), if vote.yes { "yes" } else { "no" });
    }
    if let Some(note) = &a.note {
        println!("note     {}", visible(note));
    }
    if let Some(edited) = &a.edited {
        println!("instead  {}", shown(edited).replace("\\n\n", "<U+000A>"));
    }
    if a.state == ApprovalState::Waiting {
        println!("left     {}", age(a.expires_at_ms.saturating_sub(now) / 1000));
        let people =
            if a.persons > 1 { format!("{} people say", a.persons) } else { "somebody else says".to_owned() };
        let digest: String = a.digest.chars().take(16).collect();
        println!();
        println!(
            "It runs when {people}: legwork approvals approve {} --digest {}",
            visible(a.id.as_str()),
            visible(&digest)
        );
        println!("It does not when anybody says: legwork approvals deny {}", visible(a.id.as_str()));
    }
    Ok(0)
}
