//! `legwork agent send`, `allow`, `deny`, `stop`: to an agent at work.

use anyhow::Result;
use legwork_api::{CancelPodTask, NewAnswer, NewInput, NoQuery, PodTaskId, TellPodTask};

use crate::args::HubArgs;
use crate::args::task::SteerCommand;
use crate::client;

pub(crate) async fn run(command: SteerCommand) -> Result<u8> {
    match command {
        SteerCommand::Send { task, text, hub } => {
            tell(task, NewInput { say: Some(text), answer: None }, &hub).await?;
            eprintln!("legwork: it is told before it goes on");
        }
        SteerCommand::Allow { task, call, hub } => answer(task, call, true, None, &hub).await?,
        SteerCommand::Deny { task, call, note, hub } => answer(task, call, false, note, &hub).await?,
        SteerCommand::Stop { task, hub } => {
            client::from_args(&hub)?.ask::<CancelPodTask>(&PodTaskId(task)).await?;
            eprintln!("legwork: it is told to end");
        }
    }
    Ok(0)
}

async fn answer(task: u32, call: String, allow: bool, note: Option<String>, hub: &HubArgs) -> Result<()> {
    let answer = NewAnswer { tool_id: call, allow, note };
    tell(task, NewInput { say: None, answer: Some(answer) }, hub).await
}

async fn tell(task: u32, input: NewInput, hub: &HubArgs) -> Result<()> {
    let client = client::from_args(hub)?;
    client.send::<TellPodTask>(&PodTaskId(task), &NoQuery {}, &input).await?;
    Ok(())
}
