use super::*;

struct World(Status);

const GOOD: Status = Status { is_good: true, has_failed: false, is_cancelled: false };
const FAILED: Status = Status { is_good: false, has_failed: true, is_cancelled: false };
const CANCELLED: Status = Status { is_good: false, has_failed: false, is_cancelled: true };

impl Lookup for World {
    fn status(&self) -> Status {
        self.0
    }

    fn context(&self, name: &str) -> Item {
        let json = match name {
            "env" => r#"{"STAGE": "prod", "N": "3"}"#,
            "steps" => r#"{"a": {"outputs": {"tag": "v1"}, "outcome": "failure"}}"#,
            "matrix" => r#"{"n": 2, "os": {"name": "linux"}, "flags": ["a", "B"], "on": true}"#,
            "needs" => r#"{"x": {"result": "success"}, "y": {"result": "skipped"}}"#,
            "github" => {
                r#"{"ref": "refs/heads/main", "event": {"labels": [{"name": "bug"}, {"name": "Docs"}]}}"#
            }
            _ => "{}",
        };
        Item::of_node(&legwork_yaml::parse_json(json.as_bytes()).expect("json"))
    }

    fn hash_files(&self, patterns: &[String]) -> Result<String, String> {
        Ok(patterns.join("+"))
    }
}

#[test]
fn conditions_hold_as_they_should() {
    for (text, good, failed, cancelled) in [
        ("true", true, false, false),
        ("always()", true, true, true),
        ("failure()", false, true, false),
        ("success()", true, false, false),
        ("cancelled()", false, false, true),
        ("!cancelled()", true, true, false),
        ("${{ !cancelled() && needs.y.result == 'skipped' }}", true, true, false),
        ("!success()", false, true, true),
        ("env.STAGE == 'prod'", true, false, false),
        ("${{ env.STAGE == 'PROD' }}", true, false, false),
        ("env.STAGE != 'prod'", false, false, false),
        ("env.NOTHING", false, false, false),
        ("!env.NOTHING", true, false, false),
        ("always() && steps.a.outcome == 'failure'", true, true, true),
        ("(failure() || true) && false", false, false, false),
        ("startsWith(steps.a.outputs.tag, 'v') && contains('abc', 'B')", true, false, false),
        ("endsWith('it''s', 's')", true, false, false),
        ("steps.a.outputs.none == ''", true, false, false),
        ("env.N > 2 && env.N <= 3", true, false, false),
        ("contains(needs.*.result, 'skipped')", true, false, false),
        ("contains(github.event.labels.*.name, 'docs')", true, false, false),
        ("contains(fromJSON('[\"push\", \"x\"]'), 'push')", true, false, false),
        ("github['ref'] == 'refs/heads/main'", true, false, false),
        ("matrix.on == true && matrix.n == 2 && matrix.flags[1] == 'b'", true, false, false),
        ("null == 0 && '' == 0 && true == 1 && 'x' != 0", true, false, false),
        ("0x10 == 16 && -1.5e1 == -15", true, false, false),
        // Text around an expression is a text, and one that is there is true.
        ("always() && ${{ false }}", true, false, false),
        ("GitHub.Ref == 'refs/heads/main' && STARTSWITH('ab', 'A')", true, false, false),
    ] {
        let condition = Condition::parse(text).expect(text);
        let of = |status| condition.holds(&World(status)).expect(text);
        assert_eq!((of(GOOD), of(FAILED), of(CANCELLED)), (good, failed, cancelled), "{text}");
    }
}

#[test]
fn values_are_texts_as_github_writes_them() {
    for (text, want) in [
        ("a-${{ steps.a.outputs.tag }}-${{env.NOTHING}}.", "a-v1-."),
        ("$x {{ }}", "$x {{ }}"),
        ("${{ 1.0 }} ${{ 2.5 }} ${{ true }} ${{ null }} ${{ 1e3 }}", "1 2.5 true  1000"),
        ("${{ matrix.flags }} ${{ matrix.os }}", "Array Object"),
        ("${{ join(matrix.flags, '-') }} ${{ join(matrix.flags) }}", "a-B a,B"),
        ("${{ format('{0} {{x}} {1}', 'a', 2) }}", "a {x} 2"),
        ("${{ toJSON(matrix.os) }}", "{\n  \"name\": \"linux\"\n}"),
        ("${{ toJSON(matrix.flags) }}|${{ toJSON('a') }}", "[\n  \"a\",\n  \"B\"\n]|\"a\""),
        ("${{ fromJSON('{\"a\": [1, {\"b\": 5}]}').a[1].b }}", "5"),
        ("${{ hashFiles('a', '**/b') }}", "a+**/b"),
        ("${{ env.STAGE == 'prod' && 'yes' || 'no' }}", "yes"),
        ("${{ '}}' }}", "}}"),
        ("${{ !!matrix.n }}", "true"),
        ("${{ secrets.NONE }}", ""),
    ] {
        let filled = Template::parse(text).expect(text).fill(&World(GOOD));
        assert_eq!(filled.as_deref(), Ok(want), "{text}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let deep = "(".repeat(100);
    for (text, want) in [
        ("", "ends too early"),
        ("a b", "no context 'a'"),
        ("githup.ref == 'x'", "did you mean 'github'?"),
        ("contains('a')", "takes 2 arguments"),
        ("nope()", "no function nope()"),
        ("hashFile('x')", "did you mean 'hashFiles'?"),
        ("'x", "closing '"),
        ("env.X == \"x\"", "single quotes"),
        ("(true", "'(' without its end"),
        ("env[", "ends too early"),
        ("true)", "unexpected ')'"),
        ("$x", "'$' is no part"),
        (&deep, "nests too deep"),
        ("${{ true", "without '}}'"),
        ("env.", "ends too early"),
    ] {
        let error = Condition::parse(text).expect_err(text).to_string();
        assert!(error.contains(want), "{text}: {error}");
    }
    for (text, want) in [
        ("${{ fromJSON('sk-secret') }}", "fromJSON(): the text is no JSON"),
        ("${{ format('{0}') }}", "no argument 0"),
        ("${{ format('{') }}", "stands alone"),
    ] {
        let error = Template::parse(text).expect(text).fill(&World(GOOD)).expect_err(text).to_string();
        assert!(error.contains(want), "{text}: {error}");
    }
}
