//! The user that commands run as.

use std::io;

use serde::{Deserialize, Serialize};

/// A user, by numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// The user's number.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Other groups.
    pub groups: Vec<u32>,
    /// Home folder.
    pub home: String,
}

impl Identity {
    /// Looks a user up in /etc/passwd and /etc/group.
    pub fn find(name: &str) -> io::Result<Self> {
        let passwd = std::fs::read_to_string("/etc/passwd")?;
        let group = std::fs::read_to_string("/etc/group")?;
        Self::find_in(name, &passwd, &group)
            .ok_or_else(|| io::Error::other(format!("there is no user '{name}' in /etc/passwd")))
    }

    fn find_in(name: &str, passwd: &str, group: &str) -> Option<Self> {
        let fields: Vec<&str> = passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|f| f.first() == Some(&name))?;
        let groups = group
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(':').skip(2);
                let gid = fields.next()?.parse().ok()?;
                fields.next()?.split(',').any(|member| member == name).then_some(gid)
            })
            .collect();
        Some(Self {
            name: name.to_owned(),
            uid: fields.get(2)?.parse().ok()?,
            gid: fields.get(3)?.parse().ok()?,
            groups,
            home: (*fields.get(5)?).to_owned(),
        })
    }

    /// Becomes this user, for good.
    pub(crate) fn assume(&self) -> io::Result<()> {
        use rustix::process::{Gid, Uid};
        use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let groups: Vec<Gid> = self.groups.iter().map(|g| Gid::from_raw(*g)).collect();
        // The process has one thread, so its credentials are the thread's.
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        // The change made /proc/self the superuser's, which is in the way of namespaces.
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_with_their_groups() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nops:x:1000:1001:Ops,,,:/home/ops:/bin/sh\n";
        let group = "root:x:0:\nops:x:1001:\nadm:x:4:syslog,ops\nother:x:5:opsx\n";
        let ops = Identity::find_in("ops", passwd, group).expect("found");
        assert_eq!((ops.uid, ops.gid, ops.groups, ops.home.as_str()), (1000, 1001, vec![4], "/home/ops"));
        assert_eq!(Identity::find_in("op", passwd, group), None);
    }
}
