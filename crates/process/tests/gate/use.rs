use crate::kit::Yard;

#[tokio::test]
async fn what_no_rule_allows_is_denied_where_it_is_executed() {
    let yard = Yard::new(&["ls *", "echo *"]);
    let outcome = yard.run("ls /; cmd=i; cmd+=d; $cmd -u; echo $?").await;
    assert!(outcome.ok(), "{}", outcome.all());
    assert!(outcome.stdout.contains("usr") && outcome.stdout.ends_with("126\n"), "{}", outcome.all());
    assert!(outcome.stderr.contains("Permission denied"), "{}", outcome.all());
    assert_eq!(outcome.denied(), ["id"]);
    let denial = outcome.denial("id");
    assert_eq!((denial.command.as_str(), denial.rule.as_deref()), ("id -u", None));
    assert!(yard.run_free("cmd=i; cmd+=d; $cmd -u").await.ok());
}
