use std::process::Command;

use super::*;
use crate::expression::Status;
use crate::value::Item;

struct World(Vec<(String, Item)>);

impl Lookup for World {
    fn status(&self) -> Status {
        Status { is_good: true, has_failed: false, is_cancelled: false }
    }

    fn context(&self, name: &str) -> Item {
        if name == "inputs" { Item::Map(self.0.clone()) } else { Item::Null }
    }

    fn hash_files(&self, _: &[String]) -> Result<String, String> {
        Ok(String::new())
    }
}

fn world(value: &str) -> World {
    World(vec![("x".into(), value.into()), ("n".into(), Item::Number(7.0)), ("none".into(), "".into())])
}

/// What a script says that is started with its values beside it, as the runner does.
#[expect(clippy::disallowed_methods, reason = "a test's own children")]
fn said(argv: &[&str], text: &str, dialect: Dialect, value: &str) -> String {
    let script = Script::parse(text, dialect).expect(text);
    let env = script.variables(&world(value)).expect("values");
    let output = Command::new(argv[0]).args(&argv[1..]).arg(&script.text).envs(env).output().expect(argv[0]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { text } else { format!("{text}{}", String::from_utf8_lossy(&output.stderr)) }
}

#[expect(clippy::disallowed_methods, reason = "a test's own children")]
fn pasted(argv: &[&str], text: &str, value: &str) -> String {
    let text = Template::parse(text).expect(text).fill(&world(value)).expect("filled");
    let output = Command::new(argv[0]).args(&argv[1..]).arg(text).output().expect(argv[0]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const SHELL: &[&str] = &["bash", "-c"];

const SCRIPTS: &[&str] = &[
    "echo ${{ inputs.x }}",
    "echo \"${{ inputs.x }}\"",
    "echo '${{ inputs.x }}'",
    "echo $'a\\t${{ inputs.x }}\\tb'",
    "echo \"a'${{ inputs.x }}'b\" 'a\"${{ inputs.x }}\"b'",
    "V=${{ inputs.n }}; echo $((V + ${{ inputs.n }} << 1))",
    "cat <<EOF\n$((1+1)) ${{ inputs.x }} '${{ inputs.n }}'\nEOF\necho end",
    "cat <<'EOF'\n$HOME `x` \\ ${{ inputs.x }} '\nEOF\necho '${{ inputs.x }}'",
    "cat <<\"EOF\" | tr a-z A-Z\n$HOME ${{ inputs.x }}\nEOF",
    "cat <<-'EOF'\n\t$HOME ${{ inputs.x }}\n\tEOF\necho after",
    "cat <<A; cat <<'B'\n${{ inputs.x }}\nA\n$X${{ inputs.x }}\nB\necho done",
    "# don't ${{ inputs.x }}\necho '${{ inputs.x }}'",
    "echo \"$(echo '${{ inputs.x }}')\" `echo '${{ inputs.n }}'`",
    "echo ${NOT:-${{ inputs.x }}} ${#NOT} $# '${{ inputs.x }}'",
    "if [ '${{ inputs.x }}' = '' ]; then echo none; else echo some; fi",
    "if [[ \"${{ inputs.n }}\" == 7 && ${{ inputs.n }} -gt 3 ]]; then echo seven; fi",
    "if ${{ inputs.n == 7 }}; then echo yes; fi",
    "for i in ${{ inputs.x }} b; do echo \"<$i>\"; done",
    "case '${{ inputs.x }}' in *) echo \"it's ${{ inputs.x }}\";; esac",
    "printf '%s|' ${{ inputs.none }} a '${{ inputs.none }}' \"${{ inputs.none }}\"",
    "echo a\\\n  ${{ inputs.x }} \"\\${{ inputs.n }}\"",
    "x='it'\\''s ${{ inputs.x }}'; echo \"$x\"",
    "echo \"${{ inputs.x }}\" <<< '${{ inputs.n }}' && cat <<< '${{ inputs.n }}'",
    "sh -c 'echo ${{ inputs.n }} \"$0\"' zero",
];

/// Honest values give what they give when they are pasted.
#[test]
fn honest_values_give_what_they_give_when_pasted() {
    for script in SCRIPTS {
        for value in ["", "two words", "refs/heads/é=1"] {
            let ours = said(SHELL, script, Dialect::Posix, value);
            assert_eq!(ours, pasted(SHELL, script, value), "{script} with {value}");
        }
    }
}

/// Whatever a value is, it is never run, and quotes keep it whole.
#[test]
fn no_value_is_run() {
    let dir = std::env::temp_dir().join(format!("legwork-script-{}", std::process::id()));
    let mark = dir.display().to_string();
    let hostile = [
        format!("$(mkdir {mark})`mkdir {mark}`"),
        format!("'; mkdir {mark}; '\"; mkdir {mark}; \"; mkdir {mark} #"),
        format!("\nEOF\nB\nA\nmkdir {mark}\n"),
    ];
    for value in &hostile {
        for script in SCRIPTS {
            // A shell evaluates what stands in arithmetic and in a condition of its own: GitHub's too.
            let _ = said(SHELL, script, Dialect::Posix, value);
            assert!(!dir.exists(), "{script} with {value}");
        }
        for script in ["echo '${{ inputs.x }}'", "echo \"${{ inputs.x }}\""] {
            assert_eq!(said(SHELL, script, Dialect::Posix, value), format!("{value}\n"));
        }
        let text = said(&["python3", "-c", PYTHON_RUN], "print('${{ inputs.x }}')", Dialect::Python, value);
        assert_eq!(text, format!("{value}\n"));
    }
}

/// As the runner has it: the script in a file, and the filler before it.
const PYTHON_RUN: &str = "import sys,tempfile,subprocess;f=tempfile.NamedTemporaryFile('w',suffix='.py');f.write(sys.argv[1]);f.flush();sys.exit(subprocess.call([sys.executable,'-c',open('src/script/fill.py').read(),f.name]))";

#[test]
fn other_languages_get_values_too() {
    let python = |text: &str, value: &str| said(&["python3", "-c", PYTHON_RUN], text, Dialect::Python, value);
    assert_eq!(
        python("print(\"it's ${{ inputs.x }}\", ${{ inputs.n }} + 1)", "it's \"x\""),
        "it's it's \"x\" 8\n"
    );
    assert_eq!(python("x = ${{ inputs.x }}\nprint(len(x))", "[1, 2]"), "2\n");
    assert_eq!(python("# ${{ inputs.x }}\nprint(f'{1+1} ${{ inputs.x }}' % ())", "a"), "2 a\n");
    let node = |text: &str, value: &str| said(&["node", "-e"], text, Dialect::JavaScript, value);
    assert_eq!(node("console.log('a ${{ inputs.x }}'.length, ${{ inputs.n }} + 1)", "it's"), "6 8\n");
    assert_eq!(node("console.log(`${1+1} ${{ inputs.x }}`) // don't ${{ inputs.x }}\n", "`$x"), "2 `$x\n");
    let script =
        Script::parse("echo 'a ${{ inputs.x }}' \"${{ inputs.n }}\" # ${{ inputs.x }}", Dialect::PowerShell);
    let text = "echo ('a ' + $env:LEGWORK_EXPR_0 + '') \"$($env:LEGWORK_EXPR_1)\" # LEGWORK_EXPR_0";
    assert_eq!(script.expect("script").text, text);
    assert!(Script::parse("print ${{ inputs.x }}", Dialect::Other).is_err());
    assert!(Script::parse("cat <<${{ inputs.x }}\n", Dialect::Posix).is_err());
    assert!(Script::parse("echo ${{ inputs.x", Dialect::Posix).is_err());
}
