#!/bin/bash
# usage: c_client.sh HOST:PORT CLI
#
# The official C client against a running server, through its shell (CLI is the path of cli_mt).
#
# What this proves: a client nobody here wrote connects, creates (plain, ephemeral, sequential, create2), lists, reads, writes,
# deletes, syncs, gets the error codes it knows, hears of changes through its watches, and closes its session.
#
# The idea: a shell runs in the background with its input on a pipe and its output in a file; a command is sent, then the output
# behind the last command is searched for what must appear, with a deadline. A case is one or more such steps.
#
# Prints `ok NAME` or `FAIL NAME: reason` per case; exit status 0 only if nothing failed.
# Not here: what its shell cannot do (multi, pipelining, losing a connection, resuming a session: its option for that never
# reads the file back right): see c_client.c.

set -u
[ $# = 2 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }
server=$1 cli=$2
[ -x "$cli" ] || { echo "$cli is not a program" >&2; exit 2; }

seconds_max=10
work=$(mktemp -d) || exit 2
root=/c-shell-$$
failed=0 passed=0
declare -A pid=() input=() mark=()

# start NAME: a shell of that name
start() {
    local name=$1 fd
    rm -f "$work/$name.in"
    mkfifo "$work/$name.in"
    : > "$work/$name.out"
    mark[$name]=0
    "$cli" -h "$server" < "$work/$name.in" > "$work/$name.out" 2>&1 &
    pid[$name]=$!
    exec {fd}> "$work/$name.in"
    input[$name]=$fd
}

# send NAME COMMAND: what is awaited from here on is output behind this command
send() {
    mark[$1]=$(stat -c %s "$work/$1.out")
    echo "$2" >&"${input[$1]}"
}

output() { tail -c +$((mark[$1] + 1)) "$work/$1.out"; }

# await NAME TEXT...: each text must appear as a whole line, a leading or trailing blank aside
await() {
    local name=$1 text end=$((SECONDS + seconds_max))
    shift
    for text; do
        until output "$name" | sed 's/^[ \t]*//; s/[ \t]*$//' | grep -qxF -- "$text"; do
            if [ $SECONDS -ge $end ]; then
                reason="no line \"$text\" in: $(output "$name" | tr -s '\n\t ' ' ' | tail -c 400)"
                return 1
            fi
            sleep 0.01
        done
    done
}

# ended NAME: the shell must end by itself
ended() {
    local end=$((SECONDS + seconds_max)) fd=${input[$1]}
    while kill -0 "${pid[$1]}" 2>/dev/null; do
        [ $SECONDS -lt $end ] || { reason="the shell did not end"; return 1; }
        sleep 0.01
    done
    wait "${pid[$1]}"
    exec {fd}>&-
    unset "pid[$1]"
}

killed() {
    local fd=${input[$1]}
    kill -9 "${pid[$1]}" 2>/dev/null
    wait "${pid[$1]}" 2>/dev/null
    exec {fd}>&-
    unset "pid[$1]"
}

clean() {
    local name
    for name in "${!pid[@]}"; do killed "$name"; done
    rm -rf "$work"
}
trap clean EXIT
trap '' PIPE # a shell that died is told by the case that waits for it

run() {
    reason="unexpected output"
    if "$1"; then
        echo "ok $1"
        passed=$((passed + 1))
    else
        echo "FAIL $1: $reason"
        failed=$((failed + 1))
    fi
}

# --- cases, in order: each builds on what the ones before it left -------------------------------------------------------

test_connect() {
    start one && await one "Watcher SESSION_EVENT state = CONNECTED_STATE" &&
        start two && await two "Watcher SESSION_EVENT state = CONNECTED_STATE"
}

test_create() {
    send one "create $root" && await one "[$root]: rc = 0" "name = $root"
}

test_create_again() {
    send one "create $root" && await one "[$root]: rc = -110"
}

test_create_below_nothing() {
    send one "create $root/no/where" && await one "[$root/no/where]: rc = -101"
}

test_create_sequential() {
    send one "create +s $root/s-" && await one "name = $root/s-0000000000" &&
        send one "create +s $root/s-" && await one "name = $root/s-0000000001" &&
        send one "create +es $root/s-" && await one "name = $root/s-0000000002"
}

test_create2() {
    send one "create2 $root/two" && await one "[$root/two]: rc = 0" "name = $root/two" "version=0	aversion=0" "ephemeralOwner = 0"
}

test_ls() {
    send one "ls $root" && await one "$root: rc = 0" s-0000000000 s-0000000001 s-0000000002 two
}

test_ls2() {
    send one "ls2 $root" && await one s-0000000000 two "version=0	aversion=0"
}

test_set_and_get() {
    send one "set $root hello" && await one "$root: rc = 0 Stat:" "version=1	aversion=0" &&
        send one "get $root" && await one "$root: rc = 0" "value_len = 5" hello "version=1	aversion=0" &&
        send two "get $root" && await two "$root: rc = 0" "value_len = 5" hello
}

test_asynchronous_commands() {
    send one "aset $root hello" && await one "$root: rc = 0 Stat:" "version=2	aversion=0" &&
        send one "aget $root" && await one "value_len = 5" hello &&
        send one "als $root" && await one two
}

test_errors_of_missing_nodes() {
    send one "get $root/none" && await one "$root/none: rc = -101" &&
        send one "delete $root/none" && await one "$root/none: rc = -101" &&
        send one "set $root/none x" && await one "$root/none: rc = -101 Stat:" &&
        send one "ls $root/none" && await one "$root/none: rc = -101"
}

test_delete_of_a_parent() {
    send one "delete $root" && await one "$root: rc = -111"
}

test_sync() {
    send one "sync $root" && await one "[$root]: rc = 0" "name = $root"
}

test_data_watch_fires() {
    send one "get $root" && await one hello &&
        send two "set $root world" && await two "version=3	aversion=0" &&
        await one "Watcher CHANGED_EVENT state = CONNECTED_STATE for path $root"
}

test_exists_watch_fires() {
    send one "wexists $root/later" && await one "Error -101 for $root/later" &&
        send two "create $root/later" && await two "[$root/later]: rc = 0" &&
        await one "Watcher CREATED_EVENT state = CONNECTED_STATE for path $root/later"
}

test_child_watch_fires() {
    send one "ls $root/later" && await one "$root/later: rc = 0" &&
        send two "create $root/later/child" && await two "[$root/later/child]: rc = 0" &&
        await one "Watcher CHILD_EVENT state = CONNECTED_STATE for path $root/later" &&
        send two "delete $root/later/child" && await two "$root/later/child: rc = 0"
}

test_delete_watch_fires() {
    send one "get $root/later" && await one "$root/later: rc = 0" &&
        send two "delete $root/later" && await two "$root/later: rc = 0" &&
        await one "Watcher DELETED_EVENT state = CONNECTED_STATE for path $root/later"
}

test_own_watch_fires() {
    send one "get $root/two" && await one "$root/two: rc = 0" &&
        send one "set $root/two x" &&
        await one "Watcher CHANGED_EVENT state = CONNECTED_STATE for path $root/two" "$root/two: rc = 0 Stat:"
}

test_ephemeral_goes_with_its_session() {
    send one "create +e $root/e" && await one "name = $root/e" &&
        send two "get $root/e" && await two "$root/e: rc = 0" &&
        send one quit && ended one &&
        await two "Watcher DELETED_EVENT state = CONNECTED_STATE for path $root/e" &&
        send two "get $root/e" && await two "$root/e: rc = -101"
}

test_ephemeral_outlives_a_killed_process() {
    start three && await three "Watcher SESSION_EVENT state = CONNECTED_STATE" &&
        send three "create +e $root/e" && await three "name = $root/e" && killed three &&
        send two "sync $root" && await two "[$root]: rc = 0" &&
        send two "set $root/e x" && await two "$root/e: rc = 0 Stat:" "version=1	aversion=0" &&
        send two "delete $root/e" && await two "$root/e: rc = 0"
}

test_batch_mode() {
    "$cli" -h "$server" -c "get $root" > "$work/batch" 2>&1 || { reason="exit status $?"; return 1; }
    grep -qx "$root: rc = 0" "$work/batch" && grep -qx world "$work/batch"
}

test_delete() {
    local name
    for name in two s-0000000000 s-0000000001; do
        send two "delete $root/$name" && await two "$root/$name: rc = 0" || return 1
    done
    send two "ls $root" && await two "$root: rc = 0" &&
        send two "delete $root" && await two "$root: rc = 0" &&
        send two quit && ended two
}

for case in $(sed -n 's/^\(test_[a-z0-9_]*\)() {$/\1/p' "$0"); do
    run "$case"
    [ "$case" != test_connect ] || [ $failed = 0 ] || break
done
echo "$passed ok, 0 skipped, $failed failed"
[ $failed = 0 ]
