//! What a runner says of itself: bounded, as everybody is shown it.

use legwork_proto::dialout::{Environment, Heartbeat};

use crate::fleet::Runner;

/// Most labels of a runner, and how long each may be.
pub(crate) const MAX_LABELS: usize = 64;
pub(crate) const MAX_LABEL: usize = 256;
/// Longest of the other texts.
const MAX_TEXT: usize = 256;

fn cut(text: &mut String, most: usize) {
    text.truncate(text.floor_char_boundary(most));
}

/// Cuts what is too long, and leaves out what is too much.
pub(super) fn bound(heartbeat: &mut Heartbeat) {
    let told = heartbeat.labels.len();
    heartbeat.labels.retain(|label| !label.is_empty() && label.len() <= MAX_LABEL);
    heartbeat.labels.truncate(MAX_LABELS);
    if heartbeat.labels.len() < told {
        tracing::warn!(
            runner = %heartbeat.name.chars().take(MAX_TEXT).collect::<String>(),
            "left out {} labels: at most {MAX_LABELS} of at most {MAX_LABEL} bytes are kept",
            told - heartbeat.labels.len()
        );
    }
    heartbeat.features.truncate(MAX_LABELS);
    for text in [&mut heartbeat.version, &mut heartbeat.boot_id, &mut heartbeat.name] {
        cut(text, MAX_TEXT);
    }
    if let Some(environment) = &mut heartbeat.environment {
        for text in texts(environment) {
            cut(text, MAX_TEXT);
        }
    }
}

fn texts(environment: &mut Environment) -> [&mut String; 11] {
    [
        &mut environment.os,
        &mut environment.os_version,
        &mut environment.arch,
        &mut environment.hostname,
        &mut environment.shell,
        &mut environment.home_dir,
        &mut environment.workspace_root,
        &mut environment.username,
        &mut environment.current_time,
        &mut environment.timezone,
        &mut environment.utc_offset,
    ]
}

/// Takes a bounded heartbeat over.
pub(super) fn take_over(runner: &mut Runner, heartbeat: Heartbeat) {
    runner.version = heartbeat.version;
    runner.metrics = heartbeat.metrics.and_then(|m| serde_json::to_value(m).ok());
    // What was set here comes back from one that is told its labels.
    let mut labels: Vec<String> =
        heartbeat.labels.into_iter().filter(|label| !runner.set_labels.contains(label)).collect();
    if let Some(environment) = &heartbeat.environment {
        // The token generation is told its labels, and so tells us none.
        for (key, value) in
            [("os", &environment.os), ("arch", &environment.arch), ("hostname", &environment.hostname)]
        {
            let label = format!("{key}:{value}");
            if !value.is_empty() && !labels.contains(&label) {
                labels.push(label);
            }
        }
        runner.environment = serde_json::to_value(environment).ok();
        runner.own_labels = labels;
    } else {
        for label in labels {
            if !runner.own_labels.contains(&label) && runner.own_labels.len() < MAX_LABELS + 3 {
                runner.own_labels.push(label);
            }
        }
    }
    runner.join_labels();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_twenty_megabytes_are_not_taken_over() {
        let mut heartbeat = Heartbeat {
            labels: vec!["x".repeat(20 << 20), "role:db".into()],
            version: "v".repeat(1 << 20),
            ..Heartbeat::default()
        };
        heartbeat.labels.extend((0..1000).map(|n| format!("n:{n}")));
        bound(&mut heartbeat);
        assert_eq!((heartbeat.labels.len(), heartbeat.labels[0].as_str()), (MAX_LABELS, "role:db"));
        assert_eq!(heartbeat.version.len(), MAX_TEXT);
        let mut runner = Runner::new("wn_1".into(), "a".into(), "t".into());
        runner.set_labels = vec!["team:ops".into(), "role:db".into()];
        take_over(&mut runner, heartbeat);
        assert!(!runner.own_labels.contains(&"role:db".to_owned()));
        assert!(
            runner.labels.contains(&"role:db".to_owned()) && runner.labels.contains(&"team:ops".to_owned())
        );
    }
}
