use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

fn load(file: &Path) -> Result<Arc<Inventory>> {
    Inventory::load(Some(file), None, None).map(Arc::new)
}

/// An inventory of one file, and of those beside it.
fn inventory_in(dir: &Path, files: &[(&str, &str)]) -> Arc<Inventory> {
    for (name, text) in files {
        let file = dir.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
    }
    load(&dir.join(files[0].0)).unwrap_or_else(|error| panic!("{error:#}"))
}

fn inventory(text: &str) -> Arc<Inventory> {
    let dir = tempfile::tempdir().unwrap();
    inventory_in(dir.path(), &[("inventory", text)])
}

fn broken(name: &str, text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(name), text).unwrap();
    format!("{:#}", load(&dir.path().join(name)).expect_err(text))
}

fn resolved(inventory: &Arc<Inventory>, words: &[&str]) -> Vec<String> {
    let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    let targets = inventory.resolve(&words).unwrap_or_else(|error| panic!("{words:?}: {error:#}"));
    targets.into_iter().map(|target| target.name).collect()
}

fn target(inventory: &Arc<Inventory>, name: &str) -> Target {
    inventory.resolve(&[name.to_owned()]).unwrap().remove(0)
}

#[test]
fn groups_patterns_and_exclusions() {
    let text = "hosts:\n  web[1-3]:\n    user: deploy\n    port: 2222\n  db1: {address: 10.0.0.9, jump: bastion}\n\
                groups:\n  web: ['web[1-3]']\n  prod: ['@web', db1, '!web2']\n";
    let inventory = inventory(text);
    assert_eq!(resolved(&inventory, &["@prod"]), ["web1", "web3", "db1"]);
    assert_eq!(resolved(&inventory, &["web*", "!web1", "web3"]), ["web2", "web3"]);
    assert_eq!(resolved(&inventory, &["@all"]).len(), 4);
    assert_eq!(resolved(&inventory, &["other", "other"]), ["other"]);
    assert_eq!(resolved(&inventory, &["@web", "&@prod"]), ["web1", "web3"]);
    assert_eq!(resolved(&inventory, &["@all", "&web*", "&@prod", "!web3"]), ["web1"]);
    assert_eq!(resolved(&inventory, &["@p*"]), ["web1", "web3", "db1"]);
    let db = target(&inventory, "db1");
    assert_eq!((db.address.as_str(), db.args), ("10.0.0.9", vec!["-oProxyJump=bastion".to_owned()]));
    assert_eq!(target(&inventory, "web1").args, ["-oUser=deploy", "-oPort=2222"]);
    let missing = inventory.resolve(&["@none".into()]).unwrap_err().to_string();
    assert!(missing.contains("there are: prod, web"), "{missing}");
    let group = inventory.resolve(&["web".into()]).unwrap_err().to_string();
    assert!(group.contains("@web names its hosts"), "{group}");
    // Only what is common to nothing, and all but something, is nothing.
    for none in [&["web1", "!web1"][..], &["&@web"], &["!web1"]] {
        let words: Vec<String> = none.iter().map(|&word| word.to_owned()).collect();
        assert!(inventory.resolve(&words).is_err(), "{none:?}");
    }
}

#[test]
fn groups_that_contain_each_other_are_an_error() {
    let inventory = inventory("groups:\n  a: ['@b']\n  b: ['@a']\n");
    assert!(inventory.resolve(&["@a".into()]).is_err());
}

#[test]
fn hosts_have_labels_and_variables() {
    let inventory = inventory(
        "vars: {a: all, b: all, c: all}\n\
         hosts:\n  web1: {labels: [canary, 'zone:eu'], vars: {c: own, ip: 10.0.0.1}, sudo: true}\n  web2: {labels: ['zone:eu']}\n\
         groups:\n  web: {hosts: ['web*'], vars: {b: web, z: web}}\n  eu: {hosts: ['@web'], vars: {b: eu, only: eu}}\n",
    );
    assert_eq!(resolved(&inventory, &["@label:zone:eu", "!@label:canary"]), ["web2"]);
    assert!(inventory.resolve(&["@label:none".into()]).is_err());
    let vars = inventory.variables("web1").unwrap();
    // The inner group is nearer than the one that holds it.
    assert_eq!(
        (&vars["a"], &vars["b"], &vars["c"], &vars["only"]),
        (&json!("all"), &json!("web"), &json!("own"), &json!("eu"))
    );
    assert_eq!(inventory.about("web1")["group_names"], json!(["eu", "web"]));
    assert!(target(&inventory, "web1").whom.unwrap().elevated && target(&inventory, "web2").whom.is_none());
    assert!(broken("i.yaml", "hosts:\n  a: {adress: x}\n").contains("adress"));
}

#[test]
fn ansibles_ini_is_read() {
    let inventory = inventory(
        "# a comment\nlonely ansible_host=192.0.2.1\n[fe80::1]:2200\n\n[web]\nweb[01:03].example.com:2222 ansible_user=deploy note='a b # c' # why\n\
         [1:2].fail\n; another\n[db]\ndb-[a:b] ansible_port=2200\nweb01.example.com\n\n[prod:children] # both\nweb\ndb\n\n\
         [web:vars]\nansible_ssh_common_args=-o ProxyCommand=\"ssh -W %h:%p bastion\" -q\nhttp_port=80\nmode=0644\nlist=['a', 'b']\n\
         flag=True\nquoted='x'\nurl=http://{{ inventory_hostname }}:{{ http_port }}/#a\n[all:vars]\nansible_ssh_private_key_file=~/.ssh/it\n",
    );
    assert_eq!(
        resolved(&inventory, &["@web"]),
        ["web01.example.com", "web02.example.com", "web03.example.com", "1.fail", "2.fail"]
    );
    assert_eq!(resolved(&inventory, &["@prod", "&@db"]), ["web01.example.com", "db-a", "db-b"]);
    assert_eq!(resolved(&inventory, &["@ungrouped"]), ["lonely", "fe80::1"]);
    let web = target(&inventory, "web02.example.com");
    assert_eq!(
        web.args,
        [
            "-oUser=deploy",
            "-oPort=2222",
            "-oIdentityFile=\"~/.ssh/it\"",
            "-o",
            "ProxyCommand=ssh -W %h:%p bastion",
            "-q"
        ]
    );
    assert_eq!(target(&inventory, "lonely").address, "192.0.2.1");
    let vars = inventory.variables("web02.example.com").unwrap();
    for (name, value) in [
        ("http_port", json!(80)),
        ("mode", json!("0644")),
        ("list", json!(["a", "b"])),
        ("flag", json!(true)),
        ("quoted", json!("x")),
        ("note", json!("a b # c")),
    ] {
        assert_eq!(vars[name], value, "{name}");
    }
    let all = Variables::of(&Engine::default(), &inventory, "web02.example.com", &Map::new(), None).unwrap();
    assert_eq!(all.text("url").unwrap().unwrap(), "http://web02.example.com:80/#a");
    for (bad, why) in [
        ("[web:children]\nnone\n", "no group none"),
        ("[a:b]\n", "none of children and vars"),
        ("[web]\nh x\n", "expected NAME=VALUE"),
        ("[web:vars]\nx\n", "expected NAME=VALUE"),
        ("[two words]\nh\n", "one word"),
        ("[web]\nh a='b\n", "not closed"),
    ] {
        let said = broken("hosts", bad);
        assert!(said.contains(why), "{bad:?}: {said}");
    }
}

#[test]
fn ansibles_yaml_and_the_files_beside_it_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = inventory_in(
        dir.path(),
        &[
            (
                "hosts.yml",
                "all:\n  vars: {a: inventory, b: inventory, c: inventory, on: yes, off: no}\n  hosts:\n    plain:\n  children:\n    web:\n      hosts:\n        web[1:2]:\n          \
                 ansible_host: \"{{ net }}.7\"\n          ansible_become: yes\n          ansible_become_user: app\n          d: inventory\n      vars: {c: group}\n      \
                 children:\n        edge: {hosts: {web2: {}}, vars: {c: edge}}\n",
            ),
            ("group_vars/all.yml", "a: all-file\nnet: 10.9.8\n"),
            ("group_vars/web/main.yml", "b: web-file\n"),
            ("group_vars/web/vault.yml", "$ANSIBLE_VAULT;1.1;AES256\n6162\n"),
            ("host_vars/web1.yaml", "d: host-file\nsecret: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162\n"),
        ],
    );
    assert_eq!(resolved(&inventory, &["@web"]), ["web1", "web2"]);
    assert_eq!(resolved(&inventory, &["@edge", "plain"]), ["web2", "plain"]);
    let vars = inventory.variables("web1").unwrap();
    for (name, value) in [
        ("a", json!("all-file")),
        ("b", json!("web-file")),
        ("c", json!("group")),
        ("d", json!("host-file")),
        ("on", json!(true)),
        ("off", json!(false)),
    ] {
        assert_eq!(vars[name], value, "{name}");
    }
    assert!(!vars.contains_key("secret"), "what a vault keeps is not known: {vars:?}");
    assert_eq!(inventory.variables("web2").unwrap()["c"], "edge");
    let web = target(&inventory, "web1");
    assert_eq!(web.address, "10.9.8.7");
    let whom = web.whom.unwrap();
    assert_eq!((whom.elevated, whom.user.as_str(), whom.method.as_str()), (true, "app", ""));
    for (bad, why) in [
        ("web:\n  host: {a: {}}\n", "none of hosts, vars and children"),
        ("web:\n  hosts: {a: 3}\n", "map of variables"),
        ("- a\n", "no map"),
        ("a: [\n", ""),
    ] {
        assert!(broken("bad.yml", bad).contains(why), "{bad:?}");
    }
}

fn program(dir: &Path, text: &str) -> std::path::PathBuf {
    let file = dir.join("inventory.sh");
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    file
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what the program says is kept in a file")]
fn a_programs_output_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let meta = "#!/bin/sh\n[ \"$1\" = --list ] || exit 9\ncat <<'X'\n{\"_meta\": {\"hostvars\": {\"h1\": {\"ansible_host\": \"192.0.2.1\", \"n\": 1}}},\n\
                \"web\": {\"hosts\": [\"h1\", \"h2\"], \"vars\": {\"v\": \"w\"}, \"children\": [\"edge\"]}, \"edge\": [\"h3\"], \"all\": {\"children\": [\"web\"]}}\nX\n";
    let file = program(dir.path(), meta);
    let inventory = load(&file).unwrap();
    assert_eq!(resolved(&inventory, &["@web"]), ["h1", "h2", "h3"]);
    assert_eq!(resolved(&inventory, &["@all"]).len(), 3);
    assert_eq!(
        (target(&inventory, "h1").address.as_str(), &inventory.variables("h3").unwrap()["v"]),
        ("192.0.2.1", &json!("w"))
    );
    // The same, kept in a file.
    let kept = dir.path().join("kept.json");
    let text = std::process::Command::new(&file).arg("--list").output().unwrap().stdout;
    std::fs::write(&kept, text).unwrap();
    assert_eq!(resolved(&load(&kept).unwrap(), &["@edge"]), ["h3"]);
    // An older one tells of each host when it is asked.
    let each = "#!/bin/sh\ncase $1 in --list) echo '{\"web\": [\"h1\"]}';; --host) echo \"{\\\"name\\\": \\\"$2\\\"}\";; esac\n";
    let inventory = load(&program(dir.path(), each)).unwrap();
    assert_eq!(inventory.variables("h1").unwrap()["name"], "h1");
    for (bad, why) in [
        ("#!/bin/sh\nexit 3\n", "ended with"),
        ("#!/bin/sh\necho no\n", "gave no JSON"),
        (
            "#!/bin/sh\necho '{\"_meta\":{\"hostvars\":{}},\"web\":[\"@file:/etc/passwd\"]}'\n",
            "not the name of a host",
        ),
        (
            "#!/bin/sh\necho '{\"_meta\":{\"hostvars\":{}},\"web\":[\"-oProxyCommand=id\"]}'\n",
            "not the name of a host",
        ),
    ] {
        let said = format!("{:#}", load(&program(dir.path(), bad)).unwrap_err());
        assert!(said.contains(why), "{bad}: {said}");
    }
}

#[test]
fn a_configuration_of_ssh_and_a_folder_are_inventories() {
    let config = inventory("# mine\nHost web1 web2 *.internal\n  User me\nHost db\n  HostName 192.0.2.9\n");
    assert_eq!(resolved(&config, &["@all"]), ["db", "web1", "web2"]);
    assert!(target(&config, "db").args.iter().any(|arg| arg.starts_with("-F/")));
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("inv/10-web", "[web]\nw1 x=1\n"),
        ("inv/20.yml", "db:\n  hosts: {d1: {}}\nweb:\n  hosts: {w2: {}}\n"),
        ("inv/ansible.cfg", "[defaults]\n"),
        ("inv/old.bak", "[web]\nw9\n"),
        ("inv/group_vars/web.yml", "y: 2\n"),
    ] {
        let file = dir.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    let folder = load(&dir.path().join("inv")).unwrap();
    assert_eq!(resolved(&folder, &["@all"]), ["d1", "w1", "w2"]);
    assert_eq!(folder.variables("w1").unwrap(), json!({ "x": 1, "y": 2 }).as_object().unwrap().clone());
}

#[test]
fn what_no_ssh_reaches_is_said() {
    let inventory = inventory(
        "[x]\nwin ansible_connection=winrm\nhere ansible_connection=local\nodd ansible_port=x\nloop ansible_host='{{ ansible_host }}'\n",
    );
    assert!(target(&inventory, "here").is_here);
    for host in ["win", "odd", "loop"] {
        let error = format!("{:#}", inventory.resolve(&[host.into()]).unwrap_err());
        assert!(error.contains(&format!("host {host} ")), "{error}");
    }
}

#[test]
fn a_condition_chooses_hosts() {
    use crate::commands::ssh::template::Condition;
    let inventory = inventory("[web]\nw1 zone=eu\nw2 zone=us\n[db]\nd1 zone=eu\n");
    let holds = |text: &str, host: &str, facts: Option<Value>| {
        let variables =
            Variables::of(&Engine::default(), &inventory, host, &Map::new(), facts.as_ref()).unwrap();
        Condition::new(text).unwrap().holds(&variables)
    };
    assert!(holds("zone == 'eu' and 'web' in group_names", "w1", None).unwrap());
    assert!(!holds("zone == 'eu' and 'web' in group_names", "d1", None).unwrap());
    assert!(
        holds(
            "facts.os.id == 'debian' and facts.cpus > 2",
            "w1",
            Some(json!({ "os": { "id": "debian" }, "cpus": 4 }))
        )
        .unwrap()
    );
    assert!(holds("hostvars['w2'].zone == 'us' and groups.web | length == 2", "w1", None).unwrap());
    assert!(
        Condition::new("facts.cpus > 2").unwrap().asks_facts
            && !Condition::new("zone == 'facts'").unwrap().asks_facts
    );
    assert!(holds("missing == 1", "w1", None).is_err() && Condition::new("zone ==").is_err());
}
