//! Workflows: steps, in jobs that need one another (docs/protocols/task.md §10, docs/task.md). Their
//! language is the crate `workflow`'s; here they run.

mod artifacts;
mod cache;
mod commands;
mod files;
mod given;
mod job;
mod lines;
mod run;
mod scope;
mod step;
mod uses;

use legwork_workflow::{AgentStep, Problem, Source, Step, Uses, Workflow};
use legwork_yaml::Node;

use crate::config::{Agent, Rules};
use crate::settings::Settings;
pub(crate) use given::Given;
pub(crate) use run::{World, run};

/// Said of an action that nobody has.
pub(crate) const NOT_HERE: &str = "it is not in the folder of actions that LEGWORK_ACTIONS_DIR names (OWNER/NAME@REVISION); put it there, or run commands instead";

/// Reads the workflow of a task, its agents included.
pub(crate) fn of_task(config: &Node, rules: Rules<'_>) -> Result<Workflow, Vec<String>> {
    checked(Workflow::of_task(config), rules)
}

/// Reads a file: a workflow, or the task JSON of one. Its agents are checked as well.
pub fn workflow_of_file(node: &Node, rules: Rules<'_>) -> Result<Workflow, Vec<String>> {
    checked(Workflow::of_file(node), rules)
}

fn checked(read: Result<Workflow, Vec<Problem>>, rules: Rules<'_>) -> Result<Workflow, Vec<String>> {
    let told = |problems: Vec<Problem>| problems.iter().map(Problem::to_string).collect::<Vec<_>>();
    let workflow = read.map_err(told)?;
    let wrong: Vec<String> =
        workflow.agents().flat_map(|step| agent_of(step, rules).err().unwrap_or_default()).collect();
    if wrong.is_empty() { Ok(workflow) } else { Err(wrong) }
}

/// What an agent's step says, or all that is wrong with it.
fn agent_of(step: &AgentStep, rules: Rules<'_>) -> Result<Agent, Vec<String>> {
    let told = |text: &str| Problem { line: step.line, text: format!("{}{text}", step.place) }.to_string();
    match Agent::read(&step.fields, rules) {
        Ok(agent) if agent.messages.is_empty() => Err(vec![told(".prompt is required")]),
        Ok(agent) => Ok(agent),
        Err(problems) => Err(problems.iter().map(|problem| told(&format!(": {problem}"))).collect()),
    }
}

/// What actions a workflow uses that are not here.
pub fn missing_actions(workflow: &Workflow, settings: &Settings) -> Vec<Problem> {
    let missing = |(step, uses): (&Step, &Uses)| match &uses.source {
        Source::Mirror(path, revision) if uses::mirrored(settings, path, revision).is_none() => {
            Some(Problem::at(step.line, format!("'uses: {}': {NOT_HERE}", uses.name)))
        }
        _ => None,
    };
    workflow.uses().filter_map(missing).collect()
}
