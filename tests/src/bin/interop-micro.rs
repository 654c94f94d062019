//! `interop-micro PROGRAM`: our library drives a micro-runner, whoever made it, through all seven
//! commands. `interop-micro --client CLIENT PROGRAM`: a client of theirs drives a runner.
//! Either runs on a host of namespaces, where it may change `/etc`.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, reason = "a report")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use legwork_e2e::micro::host_with;
use legwork_remote::{
    Binaries, Call, Client, Error, Exec, FileRead, FileWrite, Local, Options, PkgEnsure, ServiceReload,
    SshdHarden, SudoersEnsure,
};

/// A unit that runs, is enabled and does what it is told.
const SYSTEMCTL: &str = "#!/bin/sh\ncase $1 in\nis-active) echo active ;;\nis-enabled) echo enabled ;;\nshow) echo running ;;\nesac\n";
const WITHIN: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--inside", program] => drive(program).await.map_err(|error| error.to_string()),
        ["--client", client, program] => outside(program, &[client, "/tmp/micro-runner"]).await,
        [program] => {
            let own = std::env::current_exe().unwrap();
            outside(program, &[own.to_str().unwrap(), "--inside", "/tmp/micro-runner"]).await
        }
        _ => Err("usage: interop-micro [--client CLIENT] PROGRAM".to_owned()),
    };
    match result {
        Ok(()) => {
            println!("interop passed");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("interop FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Starts the rest on a host of its own.
async fn outside(program: &str, command: &[&str]) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let doubles = dir.path().join("doubles");
    std::fs::create_dir(&doubles).unwrap();
    std::fs::write(doubles.join("systemctl"), SYSTEMCTL).unwrap();
    std::fs::set_permissions(doubles.join("systemctl"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let status = host_with(Path::new(program), &doubles, ":").args(command).status().await.unwrap();
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}")) }
}

/// All seven, on whatever is behind the path.
async fn drive(program: &str) -> Result<(), Error> {
    let client = Client::start(&Local::program(program), &Binaries::default(), Options::default()).await?;
    println!("{} {:?}", client.ready().version, client.ready().metadata);
    let call = || Call::within(WITHIN);
    let exec = Exec {
        command: "echo out; echo err >&2; exit 4".into(),
        capture_out: true,
        capture_err: true,
        ..Default::default()
    };
    let result = client.run(&exec, call()).await?;
    assert_eq!(
        (result.exit_code, result.stdout.as_deref(), result.stderr.as_deref()),
        (4, Some("out\n"), Some("err\n"))
    );
    let write = FileWrite {
        path: "/tmp/demo/f".into(),
        content: "port=1\n".into(),
        create: true,
        mode: "0640".into(),
        ..Default::default()
    };
    let written = client.run(&write, call()).await?;
    assert!(written.created && written.bytes_written == 7);
    let read = client
        .run(&FileRead { path: "/tmp/demo/f".into(), max_bytes: Some(4), ..Default::default() }, call())
        .await?;
    assert_eq!((read.content.as_str(), read.truncated, read.mode.as_str()), ("port", true, "0640"));
    assert!(matches!(
        client.run(&FileRead { path: "/none".into(), ..Default::default() }, call()).await,
        Err(Error::Command(_))
    ));
    let package = PkgEnsure { name: "dpkg".into(), state: "present".into(), ..Default::default() };
    assert_eq!(client.run(&package, call()).await?.action, "already_present");
    let service = ServiceReload { name: "nginx".into(), action: "start".into(), ..Default::default() };
    assert_eq!(client.run(&service, call()).await?.action, "already_started");
    let rule = SudoersEnsure {
        user: "deploy".into(),
        commands: vec!["/usr/bin/id".into()],
        no_passwd: true,
        state: "present".into(),
        ..Default::default()
    };
    assert_eq!(client.run(&rule, call()).await?.action, "created");
    let harden = SshdHarden { disable_root_login: true, ..Default::default() };
    assert_eq!(client.run(&harden, call()).await?.modified_keys, ["PermitRootLogin"]);
    client.close().await;
    Ok(())
}
