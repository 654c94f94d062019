# The workspace is the checkout already: another revision or another repository is what is left to do.
repository=${INPUT_REPOSITORY:-}
ref=${INPUT_REF:-}
path=${INPUT_PATH:-}
case $path in /*|..|../*|*/..|*/../*) echo "path must be within the workspace" >&2; exit 1 ;; esac
case $ref in -*) echo "'$ref' is no ref" >&2; exit 1 ;; esac
case $repository in -*|*..*|*[!A-Za-z0-9._/-]*) echo "'$repository' is no repository" >&2; exit 1 ;; esac
cd "$GITHUB_WORKSPACE"
if [ -n "$repository" ] && [ "$repository" != "${GITHUB_REPOSITORY:-}" ]; then
  if [ -z "$path" ]; then echo "another repository needs a path of its own here" >&2; exit 1; fi
  if [ -d "$path/.git" ]; then
    echo "$path is there already"
  else
    server=${INPUT_GITHUB_SERVER_URL:-$GITHUB_SERVER_URL}
    depth=${INPUT_FETCH_DEPTH:-1}
    if [ "$depth" = 0 ]; then depth=; else depth=--depth=$depth; fi
    git -c core.hooksPath=/dev/null clone --quiet $depth ${ref:+--branch "$ref"} -- "$server/$repository" "$path"
  fi
  exit 0
fi
if [ -n "$path" ] && [ "$path" != . ]; then
  mkdir -p "$path"
  top=${path%%/*}
  tar -cf - --exclude="./$top" . | tar -xf - -C "$path"
  cd "$path"
fi
if [ ! -e .git ]; then
  if [ -n "$ref" ]; then echo "::notice::there is no .git here: the tree stays as it was sent, whatever '$ref' is"; fi
  echo "The workspace is the tree that was sent"
  exit 0
fi
sha=$(git rev-parse HEAD 2>/dev/null || echo none)
if [ -n "$ref" ]; then
  short=${ref#refs/heads/}; short=${short#refs/tags/}
  there=$(git rev-parse --verify --quiet "$short^{commit}" || true)
  if [ -z "$there" ]; then echo "'$ref' is no revision here" >&2; exit 1; fi
  if [ "$there" != "$sha" ]; then git -c core.hooksPath=/dev/null checkout --quiet "$short" --; sha=$there; fi
fi
echo "The workspace is at $sha"
echo "commit=$sha" >> "$GITHUB_OUTPUT"
echo "ref=${ref:-${GITHUB_REF:-}}" >> "$GITHUB_OUTPUT"
