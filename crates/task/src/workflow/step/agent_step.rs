//! A step that is an agent's turn.

use super::*;

pub(super) async fn run_agent(step: &AgentStep, command: &Command<'_>) -> Ended {
    let world = command.world;
    let Some(client) = world.client else {
        return Ended::error("ANTHROPIC_API_KEY environment variable is required");
    };
    let dir = world.dir.join(format!("agent-{}{}", command.key.0, command.key.1.replace('/', "-")));
    if let Err(error) = std::fs::create_dir_all(&dir) {
        return Ended::error(format!("the agent's journal can't be made: {error}"));
    }
    let mut task = match super::super::agent_of(step, world.settings.rules()) {
        Ok(task) => task,
        Err(problems) => return Ended::error(problems.join("; ")),
    };
    let budget = task.budget.time.map_or(command.timeout, |time| time.min(command.timeout));
    task.budget.time = Some(budget);
    let started = Instant::now();
    let agent = agent::World {
        contact: world.contact,
        settings: world.settings,
        hands: world.hands,
        events: command.events,
        client,
        persistence: world.persistence,
        abort: command.abort,
        requester: world.requester,
        dir,
    };
    // An agent's own loop is large: not within every step's.
    let ending = Box::pin(agent::run(&task, &agent)).await;
    tracing::info!(
        step = command.key.0,
        seconds = started.elapsed().as_secs(),
        input_tokens = ending.usage.input_tokens,
        output_tokens = ending.usage.output_tokens,
        "an agent step ended"
    );
    let mut left = Left::default();
    left.outputs.insert("text".into(), ending.text);
    match ending.failure {
        None => Ended { left, ..Ended::with(StepState::Success) },
        Some((_, message)) => Ended { left, output: Some(message), ..Ended::with(StepState::Failure) },
    }
}
