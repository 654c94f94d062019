//! The walls around commands, and the rules that are in force.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use legwork_base::programs;
use legwork_policy::{Named, Policy};
use legwork_process::Spec;
use legwork_process::sandbox::{Context, Group, Groups, PROXY_PORT, Plan, Profile, Settings};

use crate::egress::{self, Destinations, Door};
use crate::gating::{Gates, Judged, Standing};
use crate::trial::Walled;

/// What may run, and what it may reach: replaced as a whole when the operator changes it.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// For shell lines.
    pub policy: Policy,
    /// For MCP servers; `policy` where there is none.
    pub mcp_policy: Option<Policy>,
    /// Where commands may connect to, if they have no network but ours.
    pub destinations: Arc<Destinations>,
}

/// Rules in force, with what is derived from them.
#[derive(Debug)]
pub(crate) struct InForce {
    pub(crate) rules: Rules,
    /// The programs that rules for lines name, and those for MCP servers.
    programs: [Named; 2],
    /// Whether execs are judged by the ones, and by the others.
    standing: [Standing; 2],
    /// The same for lines whose execs can be judged though those of others can't.
    gated: Option<Arc<InForce>>,
}

impl InForce {
    /// Fails with the reason if the operator insists on judging execs, and that can't be had
    /// under these rules.
    pub(crate) fn new(rules: Rules, env: &BTreeMap<String, String>, gates: &Gates) -> Result<Self, String> {
        let path = env.get("PATH").map(String::as_str).unwrap_or_default();
        let standing = [&rules.policy, rules.mcp_policy.as_ref().unwrap_or(&rules.policy)]
            .map(|policy| gates.standing(policy, path));
        if let Some(refusal) = standing.iter().find_map(|standing| gates.refusal(standing)) {
            return Err(refusal);
        }
        let by_line = matches!(standing[0], Standing::Reading(_)) && gates.lacks.is_none();
        let gated = by_line.then(|| {
            let [_, servers] = standing.clone();
            Arc::new(Self::with_standing(rules.clone(), env, [Standing::Exec, servers]))
        });
        Ok(Self { gated, ..Self::with_standing(rules, env, standing) })
    }

    fn with_standing(rules: Rules, env: &BTreeMap<String, String>, standing: [Standing; 2]) -> Self {
        let with = |policy: Policy, standing: &Standing| {
            policy.with_env_names(env.keys().cloned()).with_exec_gate(standing.is_exec())
        };
        let rules = Rules {
            policy: with(rules.policy, &standing[0]),
            mcp_policy: rules.mcp_policy.map(|policy| with(policy, &standing[1])),
            destinations: rules.destinations,
        };
        let programs =
            [rules.policy.programs(), rules.mcp_policy.as_ref().unwrap_or(&rules.policy).programs()];
        Self { rules, programs, standing, gated: None }
    }

    /// Whether execs of lines are judged.
    pub(crate) fn standing(&self) -> &Standing {
        &self.standing[0]
    }

    /// Whether execs of MCP servers are judged.
    pub(crate) fn mcp_standing(&self) -> &Standing {
        &self.standing[1]
    }
}

/// Which rules a command is under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Under {
    Lines,
    McpServers,
    /// None: a door starts it by its own word, and any program may run.
    Programs,
}

/// Builds the walls of commands.
#[derive(Debug)]
pub(crate) struct Walls {
    settings: Settings,
    others: Vec<Settings>,
    groups: Groups,
    pub(crate) gates: Gates,
    /// Where commands' temporary folders are made.
    tmp: PathBuf,
    pub(crate) in_force: RwLock<Arc<InForce>>,
    doors: Mutex<HashMap<PathBuf, (Arc<Door>, tokio::task::AbortHandle)>>,
}

/// What went through a command's door.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) refused: Vec<String>,
}

impl Walls {
    pub(crate) fn new(
        Walled { settings, others, groups, gates, .. }: Walled,
        tmp: PathBuf,
        in_force: InForce,
    ) -> std::io::Result<Self> {
        if settings.profile != Profile::Off || !others.is_empty() {
            // What is left there belongs to commands of an earlier process that may still
            // run: each is removed by its own supervisor.
            std::fs::create_dir_all(&tmp)?;
            if settings.run_as.is_some() {
                // The folders within are each command's own; this one is only passed through.
                use std::os::unix::fs::PermissionsExt;
                std::fs::set_permissions(&tmp, std::fs::Permissions::from_mode(0o711))?;
            }
        }
        let in_force = RwLock::new(Arc::new(in_force));
        Ok(Self { settings, others, groups, gates, tmp, in_force, doors: Mutex::default() })
    }

    /// The rules that hold for what starts now.
    pub(crate) fn current(&self) -> Arc<InForce> {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The rules that hold for a line that starts now.
    pub(crate) fn current_for(&self, line: &str, env: &BTreeMap<String, String>) -> Arc<InForce> {
        let in_force = self.current();
        let path = env.get("PATH").map(String::as_str).unwrap_or_default();
        let exec =
            |_: &&Arc<InForce>| self.gates.standing_of_line(&in_force.rules.policy, path, line).is_exec();
        in_force.gated.as_ref().filter(exec).unwrap_or(&in_force).clone()
    }

    /// The profile in force.
    pub(crate) fn profile(&self) -> Profile {
        self.settings.profile
    }

    /// Puts gate and wall around what a spec describes: the walls in force, or others that are
    /// wanted. Returns the profile of these; fails if there are no such walls.
    pub(crate) fn surround(
        &self,
        spec: &mut Spec,
        (in_force, under): (&InForce, Under),
        (workspace, cwd): (&Path, &Path),
        (wanted, name): (Option<Profile>, &str),
    ) -> Result<Profile, String> {
        let profile = wanted.unwrap_or(self.settings.profile);
        self.judge_execs(spec, (in_force, under), (workspace, cwd), profile);
        if profile == Profile::Off {
            return Ok(profile);
        }
        let settings = std::iter::once(&self.settings)
            .chain(&self.others)
            .find(|settings| settings.profile == profile)
            .ok_or_else(|| format!("there are no walls of the profile {profile} here"))?;
        let named = match under {
            Under::Lines => Some(&in_force.programs[0]),
            Under::McpServers => Some(&in_force.programs[1]),
            Under::Programs => None,
        };
        let programs = match named {
            Some(Named::These(programs)) if profile != Profile::Gvisor => Some(programs.as_slice()),
            _ => None,
        };
        let shell = PathBuf::from(spec.argv.first().map(String::as_str).unwrap_or_default());
        let path = spec.env.get("PATH").cloned().unwrap_or_default();
        let context =
            Context { workspace, tmp: &self.tmp.join(name), cwd, programs, shell: &shell, path: &path };
        if let Some(plan) = settings.plan(&context) {
            self.environment(&plan, &mut spec.env);
            spec.group = self.groups.name(name);
            spec.sandbox = Some(plan);
        }
        Ok(profile)
    }

    /// The control group of a command.
    pub(crate) fn group(&self, name: &str) -> Group {
        self.groups.name(name)
    }

    /// Has execs judged, if they are to be.
    fn judge_execs(
        &self,
        spec: &mut Spec,
        (in_force, under): (&InForce, Under),
        (workspace, cwd): (&Path, &Path),
        wall: Profile,
    ) {
        let rules = &in_force.rules;
        let (rules, at) = match under {
            Under::Lines => (&rules.policy, 0),
            Under::McpServers => (rules.mcp_policy.as_ref().unwrap_or(&rules.policy), 1),
            Under::Programs => return,
        };
        if !in_force.standing[at].is_exec() {
            return;
        }
        spec.gate = Some(self.gates.gate(&Judged {
            rules,
            named: &in_force.programs[at],
            program: Path::new(spec.argv.first().map(String::as_str).unwrap_or_default()),
            shell: under == Under::Lines,
            workspace: &real(workspace),
            folder: cwd,
            path: spec.env.get("PATH").map(String::as_str).unwrap_or_default(),
            extra: &self.settings.exec,
            wall,
        }));
    }

    fn environment(&self, plan: &Plan, env: &mut BTreeMap<String, String>) {
        // tmux asks for a name of its own, and would make its socket in /tmp.
        for name in ["TMPDIR", "TMUX_TMPDIR"] {
            env.insert(name.into(), plan.tmp_seen().to_string_lossy().into_owned());
        }
        if let Some(user) = &self.settings.run_as {
            env.insert("USER".into(), user.name.clone());
            env.insert("HOME".into(), user.home.clone());
        }
        if plan.profile.holds_network() {
            let proxy = format!("127.0.0.1:{PROXY_PORT}");
            for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
                env.insert(name.into(), format!("http://{proxy}"));
            }
            for name in ["ALL_PROXY", "all_proxy"] {
                env.insert(name.into(), format!("socks5h://{proxy}"));
            }
            let own = !self.current().rules.destinations.lists_this_machine();
            for name in ["NO_PROXY", "no_proxy"] {
                // What listens beside the command is reached as on any machine.
                match own {
                    true => env.insert(name.into(), "localhost,127.0.0.1,::1".into()),
                    false => env.remove(name),
                };
            }
        }
    }

    /// Serves a command's door under the rules of now. `key` is the command's file.
    pub(crate) fn serve_door(&self, key: &Path, listener: std::net::TcpListener) {
        let allowed = self.current().rules.destinations.clone();
        let door = Arc::new(Door::default());
        let task = tokio::spawn(egress::serve(listener, allowed, door.clone())).abort_handle();
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, old)) = doors.insert(key.to_owned(), (door, task)) {
            old.abort();
        }
    }

    /// Closes a command's door; what went through it.
    pub(crate) fn close_door(&self, key: &Path) -> Passed {
        let found = self.doors.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        let Some((door, task)) = found else { return Passed::default() };
        task.abort();
        let (sent, received) = door.bytes();
        Passed { sent, received, refused: door.refused() }
    }
}

/// A folder without links in its path.
fn real(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
}

/// The programs that a wall kept a line from executing, by what the line's programs say
/// of it: the kernel tells only them.
pub(crate) fn blocked(plan: &Plan, env: &BTreeMap<String, String>, stderr: &str) -> Vec<String> {
    const MOST: usize = 16;
    let Some(executable) = &plan.exec else { return Vec::new() };
    let path = env.get("PATH").map(String::as_str).unwrap_or_default();
    let mut found: Vec<String> = Vec::new();
    for line in stderr.lines() {
        if !["Permission denied", "command not found"].iter().any(|w| line.contains(w)) {
            continue;
        }
        let words =
            line.split(|c: char| c.is_whitespace() || "'\"`‘’:,()".contains(c)).filter(|w| !w.is_empty());
        for word in words {
            let Some(file) = programs::find(word, path).and_then(|f| f.canonicalize().ok()) else {
                continue;
            };
            let is_program = std::os::unix::fs::MetadataExt::mode(&match file.metadata() {
                Ok(meta) if meta.is_file() => meta,
                _ => continue,
            }) & 0o111
                != 0;
            let may = executable.iter().any(|e| file.starts_with(e));
            if is_program && !may && !found.iter().any(|f| f == word) && found.len() < MOST {
                found.push(word.to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_not_taken_for_a_blocked_program() {
        let plan = Plan { exec: Some(vec!["/nonexistent".into()]), ..Plan::default() };
        let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        let found = |stderr: &str| blocked(&plan, &env, stderr);
        assert_eq!(found("ls: cannot access 'id': No such file or directory\n"), [] as [String; 0]);
        assert_eq!(found("bash: line 1: id: command not found\n"), ["bash", "id"]);
        assert_eq!(found("env: 'id': Permission denied\n"), ["env", "id"]);
    }
}
