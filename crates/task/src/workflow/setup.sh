# Makes a tool usable: a version folder of the operator's, mise, or what is installed.
first() { printf '%s\n' "$1" | sed -n '/[^ ]/{s/^ *//;s/ *$//;p;q;}'; }
want=$(first "$SETUP_VERSION")
if [ -z "$SETUP_TOOL" ]; then
  for tool in $(printf '%s' "$want" | tr ',' ' '); do
    program=${tool%%@*}
    if command -v "$program" >/dev/null 2>&1 || command -v "cargo-${program#cargo-}" >/dev/null 2>&1; then
      echo "$program: what is installed here is used"
    else
      echo "$program is not installed here, and nothing is installed" >&2
      exit 1
    fi
  done
  exit 0
fi
if [ -z "$want" ] && [ -n "$SETUP_FILE" ] && [ -f "$SETUP_FILE" ]; then
  case $SETUP_FILE in
    *go.mod|*go.work) want=$(sed -n 's/^go  *//p' "$SETUP_FILE" | sed -n 1p) ;;
    *package.json) want=$(sed -n 's/.*"node" *: *"\([^"]*\)".*/\1/p' "$SETUP_FILE" | sed -n 1p) ;;
    *pyproject.toml) want=$(sed -n 's/.*requires-python *= *"\([^"]*\)".*/\1/p' "$SETUP_FILE" | sed -n 1p) ;;
    *.tool-versions) want=$(sed -n "s/^$SETUP_TOOL\(js\)\{0,1\}  *//p" "$SETUP_FILE" | sed -n 1p) ;;
    *) want=$(sed -n 1p "$SETUP_FILE") ;;
  esac
fi
if [ -z "$want" ] && [ "$SETUP_TOOL" = rust ]; then
  case $SETUP_ACTION in dtolnay/rust-toolchain@*) want=${SETUP_ACTION#*@} ;; esac
  case $want in master|v[0-9]|[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]*) want= ;; esac
fi
# What is asked for, as the beginning of a version: ^20.x becomes 20.
start=$(printf '%s' "$want" | sed 's/^[v^~>=< ]*//; s/[ ,|].*$//; s/\.[xX*].*$//; s/^go//')
case $start in [0-9]*) ;; *) start= ;; esac

version_of() {
  case $SETUP_PROGRAM in
    go|terraform) "$SETUP_PROGRAM" version 2>&1 ;;
    java|erl) "$SETUP_PROGRAM" -version 2>&1 ;;
    kubectl) kubectl version --client 2>&1 ;;
    helm) helm version --short 2>&1 ;;
    zig) zig version 2>&1 ;;
    *) "$SETUP_PROGRAM" --version 2>&1 ;;
  esac | sed -n 's/^[^0-9]*\([0-9][0-9]*\(\.[0-9][0-9]*\)*\).*/\1/p' | sed -n 1p
}
fits() { case $1 in "$start"|"$start".*|"$start"-*|"$start"+*) return 0 ;; *) [ -z "$start" ] ;; esac; }

# The highest version folder that fits.
folder=
if [ -n "$SETUP_FOLDERS" ] && [ -d "$SETUP_FOLDERS/$SETUP_TOOL" ]; then
  for name in $(ls "$SETUP_FOLDERS/$SETUP_TOOL" | sort -t. -k1,1n -k2,2n -k3,3n); do
    if fits "$name"; then folder=$SETUP_FOLDERS/$SETUP_TOOL/$name; fi
  done
fi
if [ -n "$folder" ]; then
  for inner in x64 arm64; do if [ -d "$folder/$inner/bin" ]; then folder=$folder/$inner; fi; done
  if [ -d "$folder/bin" ]; then bin=$folder/bin; else bin=$folder; fi
  echo "$bin" >> "$GITHUB_PATH"
  PATH=$bin:$PATH
  echo "$SETUP_TOOL: $(version_of), from $folder"
elif [ -n "$start" ] && command -v mise >/dev/null 2>&1 && where=$(mise where "$SETUP_TOOL@$start" 2>/dev/null); then
  echo "$where/bin" >> "$GITHUB_PATH"
  PATH=$where/bin:$PATH
  echo "$SETUP_TOOL: $(version_of), by mise"
fi
if ! command -v "$SETUP_PROGRAM" >/dev/null 2>&1; then
  if [ "$SETUP_PROGRAM" = python3 ] && command -v python >/dev/null 2>&1; then
    SETUP_PROGRAM=python
  else
    echo "$SETUP_TOOL is not installed here: install it, or name a folder of versions with LEGWORK_TOOLS_DIR" >&2
    exit 1
  fi
fi
# Who sets up Python calls it python.
if [ "$SETUP_PROGRAM" = python3 ] && ! command -v python >/dev/null 2>&1; then
  mkdir -p "$RUNNER_TEMP/legwork-python"
  ln -sf "$(command -v python3)" "$RUNNER_TEMP/legwork-python/python"
  echo "$RUNNER_TEMP/legwork-python" >> "$GITHUB_PATH"
fi
have=$(version_of)
if fits "$have"; then
  echo "$SETUP_TOOL: $have is used"
else
  echo "::warning::$SETUP_TOOL: $want is asked for, and $have is what is installed here: it is used"
fi
echo "$SETUP_OUTPUT=$have" >> "$GITHUB_OUTPUT"
echo "cache-hit=false" >> "$GITHUB_OUTPUT"
if [ "$SETUP_TOOL" = java ] && [ -z "${JAVA_HOME:-}" ]; then
  home=$(dirname "$(dirname "$(readlink -f "$(command -v java)")")")
  echo "JAVA_HOME=$home" >> "$GITHUB_ENV"
fi
