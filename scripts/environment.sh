# The two virtual environments, and the browser for tests. Sourced by test.sh and demo.sh; runs nothing by itself.
#
# An environment is trusted when its stamp says what we would install today. A folder that carries our "making" mark
# was interrupted and is made again; a folder that was moved is too, for its commands point at the old place.

# Some images forbid Python to keep what it compiles. Then each of the many processes of a demonstration or a test run
# compiles torch and all the rest again: 18 s instead of 7 for a worker.
unset PYTHONDONTWRITEBYTECODE

say() { printf '\n== %s\n' "$*"; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Prints the first usable Python 3.11 or 3.12; CELLLOOP_PYTHON goes first.
find_python() {
  local candidate
  for candidate in ${CELLLOOP_PYTHON:-} python3 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  fail "Python 3.11 or 3.12 is needed and none of python3, python3.12, python3.11 is one." \
    "Install it, or name one: CELLLOOP_PYTHON=/path/to/python3.12 $0"
}

# What an environment in folder $1 is made from: the folder, the Python and the files $3... asked for with the text $2.
fingerprint() {
  local python=$1 folder=$2 wanted=$3
  shift 3
  "$python" - "$folder" "$wanted" "$@" <<'PYTHON'
import hashlib, pathlib, sys

digest = hashlib.sha256(repr((sys.version_info[:2], sys.argv[1:3])).encode())
for name in sys.argv[3:]:
    digest.update(pathlib.Path(name).read_bytes())
print(digest.hexdigest())
PYTHON
}

# make_environment FOLDER CONSTRAINTS REQUIREMENT...: installs only when something changed since the last time.
make_environment() {
  local folder=$PWD/$1 constraints=$2 python stamp quiet=--quiet
  shift 2
  python=$(find_python) || exit 1
  stamp=$(fingerprint "$python" "$folder" "$*" "$constraints" pyproject.toml) || exit 1
  if [ -x "$folder/bin/python" ] && [ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ]; then
    return
  fi
  if [ -e "$folder/.making" ] || ! "$folder/bin/python" -c '' 2>/dev/null \
    || ! grep -qsF "$folder" "$folder/bin/activate"; then
    rm -rf "$folder"
  fi
  say "Installing $* into ${folder##*/} (once; about a minute on a fast line)"
  mkdir -p "$folder"
  rm -f "$folder/empty.sqlite3"
  touch "$folder/.making"
  if [ ! -x "$folder/bin/python" ]; then
    "$python" -m venv "$folder" \
      || fail "python -m venv failed. On Debian and Ubuntu: apt-get install python3-venv"
  fi
  if [ -t 1 ]; then quiet=--progress-bar=on; fi
  # The pinned pip first: it takes half the time of the one that Python 3.11 brings. Not compiling everything saves as
  # much again; Python compiles what is imported, when it is imported.
  "$folder/bin/python" -m pip install --disable-pip-version-check --quiet --constraint "$constraints" pip \
    && PYTHONWARNINGS=ignore "$folder/bin/python" -m pip install --disable-pip-version-check "$quiet" --no-compile \
      --constraint "$constraints" "$@" \
    || fail "the installation into $folder failed (see above); run the same command again to start it afresh"
  printf '%s\n' "$stamp" >"$folder/.stamp"
  rm "$folder/.making"
}

# Both environments. Label Studio pins Django, redis and more exactly, so it lives apart, as in compose.
make_environments() {
  make_environment .venv scripts/constraints.txt --editable '.[dev]'
  make_environment .venv-label-studio scripts/constraints-label-studio.txt label-studio
  make_empty_database .venv-label-studio
}

# Label Studio's database with no user and no project in it, which every new home begins with: its migrations run
# once, not at every first start. Any command of Label Studio's migrates; an older file than it wants only costs time.
make_empty_database() {
  local folder=$1 making
  if [ -e "$folder/empty.sqlite3" ]; then return; fi
  say "Making Label Studio's empty database (once; half a minute)"
  making=$(mktemp -d)
  env -u DJANGO_DB -u DATABASE_NAME LABEL_STUDIO_BASE_DATA_DIR="$making" COLLECT_ANALYTICS=false SENTRY_DSN= \
    LATEST_VERSION_CHECK=false "$folder/bin/label-studio" version >"$making/log" 2>&1 \
    || fail "Label Studio could not make its database: $(tail -n 5 "$making/log")"
  mv "$making/label_studio.sqlite3" "$folder/empty.new"
  mv "$folder/empty.new" "$folder/empty.sqlite3"
  rm -r "$making"
}

# A Chromium for the browser tests: installed where we may (root, apt-get), asked for where we may not.
need_chromium() {
  if command -v chromium >/dev/null || command -v chromium-browser >/dev/null; then
    return
  fi
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    if [ -n "${CI:-}" ]; then
      fail "Chromium is missing and cannot be installed from here; the browser tests need it"
    fi
    say "Chromium is missing, so the browser tests are skipped. To have them: sudo apt-get install chromium"
    return
  fi
  say "Installing Chromium for the browser tests"
  apt-get update -qq || fail "apt-get update failed; is the network up?"
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium fonts-liberation >/dev/null \
    || fail "apt-get install chromium failed (see above)"
}
