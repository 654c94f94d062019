//! One wall around all that a task runs. Where a wall is a world of its own (`namespaces`,
//! `gvisor`) a task's commands share one: its processes, its loopback device, its temporary
//! folders. A command that does nothing keeps it open until the task ends.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use legwork_process::{Adoption, Progress, Running};
use legwork_runner::{Command, Failure, Requester, Runner, Wall, What};

use crate::hands::{Hands, command_file};

/// How long it waits for a process that goes on with the task after a kill.
const UNWATCHED: Duration = Duration::from_secs(3600);
/// What keeps it open. Asked to end, it asks the others and lets them end first: the world ends with
/// it, and a gVisor that hands signals on hands them to it alone. It says a word when it is there.
const KEEPER: &str = "exec 2>/dev/null; \
    trap 'kill -TERM -1; while kill -0 -1; do sleep 0.02; done; exit 0' TERM; \
    echo; while :; do sleep 2147483647 & S=$!; wait; done";

/// A task's world.
#[derive(Debug)]
pub(crate) struct World {
    task: String,
    file: PathBuf,
    running: Arc<Running>,
    watching: tokio::task::AbortHandle,
    program: Command,
}

impl Hands {
    /// Gives a command of the task what it asked for, and puts it behind the task's own wall, if there
    /// is such a thing here.
    pub(crate) async fn let_in(
        &self,
        program: &Command,
        requester: &Requester,
        runner: &Arc<Runner>,
    ) -> Result<Command, Failure> {
        if !program.keeps_tree {
            return Ok(program.clone());
        }
        let mut program = program.clone();
        let given = self.task_env.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // What a step says itself goes before.
        program.env = given.into_iter().chain(program.env).collect();
        // Rules for lines say which programs may be executed at all, which is part of a wall.
        if self.judges() || !runner.sandbox().holds_network() {
            return Ok(program);
        }
        let mut world = self.world.lock().await;
        if world.as_ref().is_some_and(|world| !world.is_there() || world.task != requester.task_id)
            && let Some(old) = world.take()
        {
            old.end(runner, requester).await;
        }
        let world = match &mut *world {
            Some(world) => world,
            none => none.insert(self.open_world(requester, runner).await?),
        };
        Ok(Command { wall: Wall::Of(world.file.clone()), ..program })
    }

    /// Ends the task's world, and all that is left in it.
    pub(crate) async fn end_world(&self) {
        let world = self.world.lock().await.take();
        if let (Some(world), Some(Ok(runner))) = (world, self.made()) {
            let requester = Requester { door: "task", who: String::new(), task_id: world.task.clone() };
            world.end(runner, &requester).await;
        }
    }

    /// Ends what a task that nobody went on with has left open here.
    async fn end_other_worlds(&self, own: &Path, runner: &Arc<Runner>) {
        let entries = std::fs::read_dir(&self.place.state).into_iter().flatten().flatten();
        let is_world = |path: &PathBuf| {
            path != own && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("world-"))
        };
        for file in entries.map(|entry| entry.path()).filter(is_world) {
            if let Adoption::Running(running) = runner.adopt(&file).await {
                end(&running).await;
            }
            let _ = std::fs::remove_file(&file);
        }
    }

    async fn open_world(&self, requester: &Requester, runner: &Arc<Runner>) -> Result<World, Failure> {
        let file = command_file(&self.place.state, "world", &requester.task_id);
        self.end_other_worlds(&file, runner).await;
        let program = Command {
            what: What::Program(["/bin/sh", "-c", KEEPER].map(String::from).to_vec()),
            workdir: ".".into(),
            subject: "the task's wall".into(),
            wall: Wall::Opens(UNWATCHED),
            ..Command::default()
        };
        let found = if file.exists() { Some(runner.adopt(&file).await) } else { None };
        let running = match found {
            Some(Adoption::Running(running)) => running,
            _ => {
                let _ = std::fs::remove_file(&file);
                runner.start(&program, requester, &file).await?
            }
        };
        // Its first word is that it is there; of one that was found again there is one to be read.
        let is_there = loop {
            match running.progress().await {
                Progress::Door(listener, _) => runner.serve_door(&file, listener),
                Progress::Output(_) => break true,
                Progress::Ended => break false,
            }
        };
        if !is_there {
            let ended = runner.finish(&program, requester, &file).await;
            let _ = std::fs::remove_file(&file);
            let why =
                ended.err().map_or_else(|| "it ended at once".to_owned(), |failure| failure.to_string());
            return Err(Failure::Failed(format!("the task's wall can't be built: {why}")));
        }
        let running = Arc::new(running);
        let watching = {
            let (running, runner, file) = (running.clone(), runner.clone(), file.clone());
            tokio::spawn(async move {
                loop {
                    match running.progress().await {
                        Progress::Door(listener, _) => runner.serve_door(&file, listener),
                        Progress::Output(_) => {}
                        Progress::Ended => return,
                    }
                }
            })
            .abort_handle()
        };
        Ok(World { task: requester.task_id.clone(), file, running, watching, program })
    }
}

impl World {
    /// Whether somebody can be let in: who is in it may have ended it.
    fn is_there(&self) -> bool {
        let status = legwork_process::status(&self.file);
        !self.running.is_gone() && status.is_ok_and(|s| s.inhabitant.is_some_and(|within| within.is_there()))
    }

    async fn end(self, runner: &Arc<Runner>, requester: &Requester) {
        self.watching.abort();
        end(&self.running).await;
        let _ = runner.finish(&self.program, requester, &self.file).await;
        let _ = std::fs::remove_file(&self.file);
    }
}

async fn end(running: &Running) {
    running.cancel();
    while !running.is_gone() {
        let _ = running.progress().await;
    }
}
