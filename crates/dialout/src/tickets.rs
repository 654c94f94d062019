//! What a runner gives along with a line that it holds, and wants back with people's yes: by it the
//! runner knows what it held, without keeping anything.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use legwork_base::clock::now_ms;
use legwork_base::digest::{same, seal};
use legwork_base::ids;
use legwork_proto::dialout::Approval;

/// For how long a ticket is good. A hub lets people think for half as long at most, and gives its runner the
/// other half to come; ids of what ran are kept for longer than that.
const LIFE_MS: u64 = 24 * 3600 * 1000;

/// Makes tickets, and knows its own.
#[derive(Debug)]
pub(crate) struct Tickets {
    key: [u8; 32],
}

impl Tickets {
    /// With the key in the state folder, which is made where there is none.
    pub(crate) fn open(state: &Path) -> io::Result<Self> {
        let path = state.join("approvals.key");
        if let Ok(kept) = std::fs::read(&path)
            && let Ok(key) = kept.try_into()
        {
            return Ok(Self { key });
        }
        let key: [u8; 32] = ids::bytes()?;
        let new = state.join("approvals.key.new");
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&key)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        Ok(Self { key })
    }

    /// A ticket for a task whose line has this digest.
    pub(crate) fn issue(&self, task_id: &str, digest: &str) -> String {
        self.until(task_id, digest, now_ms() + LIFE_MS)
    }

    fn until(&self, task_id: &str, digest: &str, until_ms: u64) -> String {
        // Neither a digest nor a number holds a line feed; the id stands last.
        let sealed = seal(&self.key, format!("held\n{until_ms}\n{digest}\n{task_id}"));
        format!("{until_ms}.{sealed}")
    }

    /// Whether a yes is for this very line of this very task, and in time; else why not.
    pub(crate) fn check(&self, task_id: &str, digest: &str, yes: &Approval) -> Result<(), String> {
        if !same(&yes.digest, digest) {
            return Err(
                "what would run now is not what was approved: the rules, or the line, have changed".into()
            );
        }
        let until: u64 = yes.ticket.split('.').next().and_then(|ms| ms.parse().ok()).unwrap_or(0);
        if !same(&self.until(task_id, digest, until), &yes.ticket) {
            return Err("the approval is for something that this runner did not hold".into());
        }
        let now = now_ms();
        if until <= now || until - now > LIFE_MS {
            return Err("the approval is too old, or the runner's clock was set to another time".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yes_is_for_one_line_of_one_task_of_one_runner_for_a_time() {
        let dir = tempfile::tempdir().expect("tempdir");
        let tickets = Tickets::open(dir.path()).expect("key");
        let yes =
            |ticket: String, digest: &str| Approval { ticket, digest: digest.into(), ..Approval::default() };
        let given = yes(tickets.issue("run_1", "d1"), "d1");
        assert_eq!(tickets.check("run_1", "d1", &given), Ok(()));
        // After a restart as well.
        assert_eq!(Tickets::open(dir.path()).expect("key").check("run_1", "d1", &given), Ok(()));
        let refused =
            |task: &str, digest: &str, yes: &Approval| tickets.check(task, digest, yes).expect_err("no");
        assert!(refused("run_2", "d1", &given).contains("did not hold"));
        assert!(refused("run_1", "d2", &given).contains("not what was approved"));
        // A digest that the hub says belongs to another ticket.
        assert!(refused("run_1", "d2", &yes(given.ticket.clone(), "d2")).contains("did not hold"));
        let longer = format!("{}0", &given.ticket[..3]);
        for forged in ["", "1", ".", &longer, "99999999999999999999.ab"] {
            assert!(refused("run_1", "d1", &yes(forged.into(), "d1")).contains("did not hold"), "{forged}");
        }
        for late in [now_ms() - 1, now_ms() + 2 * LIFE_MS] {
            let old = yes(tickets.until("run_1", "d1", late), "d1");
            assert!(refused("run_1", "d1", &old).contains("clock"));
        }
        let other = tempfile::tempdir().expect("tempdir");
        let other = Tickets::open(other.path()).expect("key");
        assert!(other.check("run_1", "d1", &given).expect_err("no").contains("did not hold"));
    }
}
