# What 's4 cluster' does on a host. It is sent to a POSIX shell after lines that set:
#   data   the data directory, empty for the usual one
# and before a line that calls one of the functions. Facts are printed as 'KEY VALUE' lines between 's4-begin' and
# 's4-end'; the end is printed by success alone, and a line 'problem TEXT' tells why there is none.
set -u
umask 022
LC_ALL=C
export LC_ALL

fail() {
    echo "problem $*"
    exit 1
}

# Where everything is, and who runs the daemon.
if [ "$(id -u)" = 0 ]; then
    as=root bin=/usr/local/bin etc=/etc user=s4
    pid_file=/run/s4-server.pid log=/var/log/s4-server.log defaults=/etc/default/s4-server
    unit=/etc/systemd/system/s4-server.service
    : "${data:=/srv/s4/data}"
else
    as=user user=$(id -un)
    etc=${XDG_DATA_HOME:-$HOME/.local/share}/s4
    bin=$etc/bin pid_file=$etc/s4-server.pid log=$etc/s4-server.log defaults=$etc/s4-server.options
    unit=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user/s4-server.service
    : "${data:=$etc/data}"
fi
conf=$etc/s4.conf secret=$etc/s4.conf.secret
new=$bin/.s4-new

# A user's systemd ends everything at logout unless the user lingers.
if [ ! -d /run/systemd/system ]; then
    service=plain
elif [ $as = root ]; then
    service=systemd
else
    : "${XDG_RUNTIME_DIR:=/run/user/$(id -u)}"
    export XDG_RUNTIME_DIR
    if systemctl --user show-environment > /dev/null 2>&1 &&
        { [ "$(loginctl show-user "$user" --property=Linger --value 2> /dev/null)" = yes ] || loginctl enable-linger 2> /dev/null; }; then
        service=systemd-user
    else
        service=plain
    fi
fi

ctl() {
    case $service in
    systemd) systemctl "$@" ;;
    systemd-user) systemctl --user "$@" ;;
    esac
}

# The daemon's process id, if it runs.
running() {
    if [ $service = plain ]; then
        pid=$(cat "$pid_file" 2> /dev/null) && [ -n "$pid" ] || return 1
        # The number may be another process's by now.
        case $(tr '\0' ' ' < "/proc/$pid/cmdline" 2> /dev/null) in
        *s4-server*"--data $data "*) echo "$pid" ;;
        *) return 1 ;;
        esac
    else
        pid=$(ctl show --property=MainPID --value s4-server 2> /dev/null)
        [ "${pid:-0}" != 0 ] && echo "$pid"
    fi
}

# The nearest directory above, or at, a path that exists.
existing() {
    at=$1
    while [ ! -d "$at" ]; do at=$(dirname "$at"); done
    echo "$at"
}

sum() {
    [ ! -e "$1" ] || sha256sum < "$1" | cut -d ' ' -f 1
}

# Facts that are looked at before anything is changed.
check() {
    echo s4-begin
    echo "date $(date +%s.%N)"
    echo "arch $(uname -m)"
    echo "kernel $(uname -r)"
    echo "system $(uname -s)"
    echo "as $as"
    echo "service $service"
    echo "address $(echo "${SSH_CONNECTION:-}" | cut -d ' ' -f 3)"
    echo "files $(ulimit -Hn)"
    for tool in sha256sum setsid mkdir mv rm cut df $([ $as = user ] || echo setpriv useradd); do
        command -v "$tool" > /dev/null 2>&1 || echo "missing $tool"
    done
    echo "data $data"
    echo "conf $conf"
    echo "defaults $defaults"
    echo "bin $bin"
    df -Pk "$(existing "$data")" | awk 'NR == 2 { print "data_kib " $4; print "disk_kib " $2 }'
    df -Pk "$(existing "$bin")" | awk 'NR == 2 { print "bin_kib " $4 }'
    [ ! -d "$data" ] || echo "held $(head -c 100 "$data/.s4/node" 2> /dev/null | head -n 1)"
    [ ! -d "$data" ] || [ -z "$(ls -A "$data" 2> /dev/null | grep -v '^lost+found$' | head -n 1)" ] || echo "filled yes"
    for program in s4 s4-server s4-mount s4-s3; do
        [ ! -x "$bin/$program" ] || echo "program $program $(sum "$bin/$program")"
    done
    [ ! -e "$secret" ] || echo "secret $(sum "$secret")"
    [ ! -e "$unit" ] || echo "unit $(sum "$unit")"
    pid=$(running) && echo "pid $pid"
    [ ! -e "$conf" ] || grep -v -e '^[[:space:]]*#' -e '^[[:space:]]*$' "$conf" | head -n 10000 | sed 's/^/node /'
    echo s4-end
}

# For another machine from which the cluster is looked after.
print_secret() {
    echo s4-begin
    echo "secret $(head -n 1 "$secret")"
    echo s4-end
}

# Makes the directory of new programs.
stage() {
    echo s4-begin
    rm -rf "$new" && mkdir -p "$new" || fail "$new cannot be made"
    echo s4-end
}

unstage() {
    rm -rf "$new"
}

# The program to try things with: the new one if there is one.
try_with() {
    if [ -x "$new/$1" ]; then echo "$new/$1"; else echo "$bin/$1"; fi
}

as_user() {
    if [ $as = user ]; then "$@"; else setpriv --reuid "$user" --regid "$user" --init-groups "$@"; fi
}

# Everything but what is used already: the user, the secret, the unit, and, if $1 is 'make', the data directory.
# The new cluster file is at $new/s4.conf.
prepare() {
    echo s4-begin
    chmod 755 "$new"/s4 "$new"/s4-* 2> /dev/null
    chmod 644 "$new/s4.conf"
    if [ $as = root ] && ! id "$user" > /dev/null 2>&1; then
        useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$user" ||
            fail "the user $user cannot be made"
    fi
    if [ "$1" = make ]; then
        mkdir -p "$data" || fail "$data cannot be made"
        [ $as = user ] || chown "$user:" "$data" || fail "$data cannot be given to $user"
        # The new directory is not the user's, who is given the file itself.
        try=$(try_with s4-server)
        said=$(cd / && as_user "$try" --conf /dev/stdin --port "$2" --data "$data" --init < "$new/s4.conf" 2>&1) ||
            fail "$(echo "$said" | tail -n 1)"
    fi
    echo s4-end
}

# Puts what is new in its place.
switch() {
    mkdir -p "$bin" "$etc" "$(dirname "$unit")" || fail "$bin, $etc or $(dirname "$unit") cannot be made"
    for program in s4 s4-server s4-mount s4-s3; do
        [ ! -e "$new/$program" ] || mv -f "$new/$program" "$bin/$program" || fail "$bin/$program cannot be replaced"
    done
    if [ -e "$new/s4.conf.secret" ]; then
        chmod 640 "$new/s4.conf.secret"
        [ $as = user ] || chown "root:$user" "$new/s4.conf.secret" || fail "$secret cannot be given to $user"
        [ $as = root ] || chmod 600 "$new/s4.conf.secret"
        mv -f "$new/s4.conf.secret" "$secret" || fail "$secret cannot be replaced"
    fi
    if [ -e "$new/s4.conf" ]; then
        mv -f "$new/s4.conf" "$conf" || fail "$conf cannot be replaced"
    fi
    if [ -e "$new/unit" ]; then
        chmod 644 "$new/unit"
        mv -f "$new/unit" "$unit" || fail "$unit cannot be replaced"
        ctl daemon-reload
    fi
    rm -rf "$new"
}

stop_daemon() {
    if [ $service != plain ]; then
        [ ! -e "$unit" ] || ctl stop s4-server || fail "$(ctl status s4-server 2>&1 | tail -n 1)"
        return
    fi
    if pid=$(running); then
        kill "$pid"
        # It ends its commands in order, for which it takes up to 8 seconds.
        for _ in $(seq 400); do
            running > /dev/null || break
            sleep 0.05
        done
        ! running > /dev/null || kill -9 "$pid"
    fi
    rm -f "$pid_file"
}

start_daemon() {
    if [ $service != plain ]; then
        ctl enable --quiet s4-server && ctl start s4-server || fail "$(ctl status s4-server 2>&1 | tail -n 1)"
        return
    fi
    ulimit -n "$(ulimit -Hn)" 2> /dev/null
    touch "$log" && chmod 640 "$log" && { [ $as = user ] || chown "$user:" "$log"; } || fail "$log cannot be made"
    cd /
    # As with systemd: HOME is that of the daemon's user, and options come from a file.
    home=$(getent passwd "$user" 2> /dev/null | cut -d : -f 6)
    options=
    [ ! -r "$defaults" ] || options=$(. "$defaults" > /dev/null 2>&1; echo "${S4_SERVER_OPTIONS:-}")
    # shellcheck disable=SC2086 # several words are several options
    set -- env -i "PATH=$bin:/usr/local/bin:/usr/bin:/bin" "HOME=${home:-/}" "USER=$user" \
        "$bin/s4-server" --conf "$conf" --port "$port" --data "$data" $options
    [ $as = user ] || set -- setpriv --reuid "$user" --regid "$user" --init-groups "$@"
    # The shell that writes its number becomes the daemon.
    setsid sh -c 'echo $$ > "$0" && exec "$@"' "$pid_file" "$@" < /dev/null >> "$log" 2>&1 &
    for _ in $(seq 200); do
        ! running > /dev/null || return 0
        sleep 0.05
    done
    fail "the daemon did not start: $(tail -n 1 "$log")"
}

# Stops the daemon if it is to be another, and starts it; $1 is the port.
commit() {
    port=$1
    echo s4-begin
    # Before the stop: clients wait for a daemon that is away for a moment.
    switch
    [ "$2" = keep ] || stop_daemon
    running > /dev/null || start_daemon
    echo s4-end
}

# Starts the daemon as it is; $1 is the port. What an interrupted command has left in $new stays there.
start() {
    port=$1
    echo s4-begin
    running > /dev/null || start_daemon
    echo s4-end
}

# Puts new programs in their place while no daemon runs.
install() {
    echo s4-begin
    switch
    echo s4-end
}

# Tells that nothing of a cluster is here.
note_absence() {
    [ -e "$conf" ] || [ -e "$secret" ] || [ -e "$data/.s4/node" ] || echo absent
}

down() {
    echo s4-begin
    note_absence
    was=$(running) && echo "pid $was"
    stop_daemon
    [ $service = plain ] || [ ! -e "$unit" ] || ctl disable --quiet s4-server
    echo s4-end
}

# Asks all nodes how they are, by this one.
health() {
    "$bin/s4" --conf-path "$conf" health --json
    [ $? -le 1 ]
}

# Jobs that have not ended.
jobs() {
    found=$("$bin/s4" --conf-path "$conf" jobs --json) || fail "the nodes do not tell of their jobs"
    echo "$found" | grep -c '"state":"running"' || :
}

last_words() {
    echo s4-begin
    if [ $service = plain ]; then
        echo "said $(tail -n 1 "$log" 2> /dev/null)"
    elif [ $service = systemd ]; then
        echo "said $(journalctl --unit=s4-server --lines=1 --output=cat 2> /dev/null)"
    else
        echo "said $(journalctl --user --unit=s4-server --lines=1 --output=cat 2> /dev/null)"
    fi
    echo s4-end
}

# Removes all that 'up' has made, keys too.
destroy() {
    echo s4-begin
    note_absence
    stop_daemon
    [ $service = plain ] || [ ! -e "$unit" ] || ctl disable --quiet s4-server
    if [ -e "$data/.s4/node" ]; then
        # The directory itself may be where a disk is mounted.
        find "$data" -xdev -mindepth 1 -depth ! -path "$data/lost+found" -delete || fail "$data cannot be emptied"
        rmdir "$data" 2> /dev/null
    elif [ -n "$(ls -A "$data" 2> /dev/null | grep -v '^lost+found$')" ]; then
        fail "$data is no data directory of a node, and is left as it is"
    fi
    # On the machine that asks, they are the programs that it runs.
    [ "$(echo "${SSH_CONNECTION:-}" | cut -d ' ' -f 1)" = "$(echo "${SSH_CONNECTION:-}" | cut -d ' ' -f 3)" ] ||
        rm -f "$bin/s4" "$bin/s4-server" "$bin/s4-mount" "$bin/s4-s3"
    rm -rf "$new" "$conf" "$secret" "$unit" "$log" "$pid_file"
    # That of root may be a package's.
    [ $as = root ] || rm -f "$defaults"
    ctl daemon-reload
    if [ $as = user ]; then
        rmdir "$bin" "$etc" 2> /dev/null
    elif id "$user" > /dev/null 2>&1 && [ "$(getent passwd "$user" | cut -d : -f 6)" = /nonexistent ]; then
        userdel "$user" 2> /dev/null
    fi
    echo s4-end
}

# The same on a host that has no node any more; only its daemon is stopped if keys are left here.
leave() {
    if [ -n "$(find "$data" -xdev -mindepth 1 \( -path "$data/.s4" -o -path "$data/lost+found" \) -prune -o -type f -print 2> /dev/null | head -n 1)" ]; then
        down
        echo kept
    else
        destroy
    fi
}
