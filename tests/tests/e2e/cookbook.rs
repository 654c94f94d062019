//! The rule sets of the cookbook (`docs/policy.md`), tried as the page says.

use legwork_e2e::legwork;

#[tokio::test]
async fn every_rule_set_of_the_cookbook_does_what_its_comments_say() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policy.md")).unwrap();
    let (page, cookbook) = page.split_once("## Cookbook").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yaml");
    let first = page.split("```yaml").nth(1).unwrap().split("```").next().unwrap();
    std::fs::write(&config, first).unwrap();
    let output = legwork(dir.path())
        .args(["policy", "check", "-c"])
        .arg(&config)
        .args(["--", "tail -n 20 /var/log/dpkg.log; git log"])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let (mut sets, mut lines) = (0, 0);
    for block in cookbook.split("```yaml").skip(1).map(|b| b.split("```").next().unwrap()) {
        std::fs::write(&config, block).unwrap();
        sets += 1;
        let attacked = legwork(dir.path())
            .args(["policy", "lint", "--attack", "--json", "-c"])
            .arg(&config)
            .output()
            .await
            .unwrap();
        let passing: Vec<serde_json::Value> = serde_json::from_slice(&attacked.stdout).unwrap();
        // The last one is for accidents, and the page says so.
        assert_eq!(passing.is_empty(), sets < 10, "set {sets}: {passing:?}");
        for comment in block.lines().filter_map(|l| l.strip_prefix("# ")) {
            let (decision, line) = comment.split_once(": ").unwrap();
            let output = legwork(dir.path())
                .args(["policy", "check", "--config"])
                .arg(&config)
                .args(["--", line])
                .output()
                .await
                .unwrap();
            let wanted = match decision {
                "allow" => 0,
                "deny" => 1,
                "ask" => 3,
                other => panic!("{other}"),
            };
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(output.status.code(), Some(wanted), "set {sets}: {line}: {said}");
            lines += 1;
        }
    }
    assert_eq!(sets, 10);
    assert!(lines > 35, "{lines}");
}
