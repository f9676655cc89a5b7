//! `s4 help TOPIC`: what concerns more than one command. The topics are sections of the man page too.

/// The names of the topics, and their texts.
pub const TOPICS: [(&str, &str); 6] = [
    ("names", NAMES),
    ("maps", MAPS),
    ("events", EVENTS),
    ("environment", ENVIRONMENT),
    ("files", FILES),
    ("exit", EXIT),
];

/// The text of a topic; `None` if there is no such topic.
pub fn text_of(topic: &str) -> Option<&'static str> {
    TOPICS.iter().find(|(name, _)| *name == topic).map(|(_, text)| *text)
}

const NAMES: &str = r#"A key is s4://bucket/dir/name. Only its basename, the last part, decides on which node it is.

  000_a, 3_x, 12   a number before the first _, or alone: node number modulo nodes
  UA, x.csv        anything else is hashed: always the same node of a given cluster

So keys of one basename are on one node, whatever their directories, and map-from-n brings them together. To choose
nodes yourself, begin the names with numbers. The merge name of a key is this number as written ('002' of '002_a'), or
else the whole basename.

Examples
  s4 map-to-n s4://in/ s4://parts/ \
      'awk "{ f = (NR % 12) \"_part\"; print > f }"; ls'
  s4 config            # the nodes and their numbers

A name is UTF-8 without whitespace and control characters. No part is empty, '.' or '..', or longer than 255 bytes;
bucket and key together have at most 1,024. A bucket does not begin with '.' or _. A name is a key or a directory,
never both.
"#;

const MAPS: &str = r#"A map runs one shell command many times, next to the data.

  s4 map INDIR OUTDIR CMD          once for each key; stdin is the key, stdout the new key of the same name
  s4 map-to-n INDIR OUTDIR CMD     once for each key; each file that CMD writes and whose name it prints goes to the
                                   node that its name decides, as OUTDIR/INPUT/FILE
  s4 map-from-n INDIR OUTDIR CMD   once for each name; stdin lists the paths of all keys of that name, and stdout is
                                   the new key

Examples
  s4 map --ok-exit 0,1 s4://in/ s4://out/ 'grep -c error'
  s4 map-to-n s4://in/ s4://parts/ 's4 partition -n 96 -d, -k3'
  s4 map-from-n s4://parts/ s4://merged/ 'xargs -d "\n" cat | sort'

INDIR is a directory, listed recursively. Its parts may hold '?', '[...]' and '*'; none of them crosses a /. With such
a pattern, output paths begin at the first part that holds one. OUTDIR must not be INDIR, nor lie in it, nor hold it.

CMD is run by bash under 'set -euo pipefail', with LC_ALL=C, in an empty directory that is removed afterwards. Its
output becomes a key only after it has succeeded. No key is ever overwritten. 's4 help environment' lists its variables.

  --try            run the command on one key, keep nothing, and estimate the whole
  --file PATH      put a script or a table into the directory of every task
  --ok-exit 0,1    exit statuses that mean success: grep exits with 1 if it finds nothing
  --resume         run only the tasks that are not done; --update: also those whose command or inputs have changed

A map is a job: 's4 jobs', 's4 wait ID', 's4 logs ID', 's4 cancel ID'. 's4 why KEY' says what made a key. A job lives
on the nodes, and continues if the client that started it is killed or loses its connection. Ctrl-C and SIGTERM to the
client of a map cancel the job; a job that was started with --detach is ended by 's4 cancel'.

On a terminal, a map and 's4 wait' show on stderr tasks and bytes done, tasks running and failed, rate, time left, a bar
for each node where they fit, and the tasks that have run for longest. Elsewhere they print a line every 5 seconds. The
first failed task of each kind is reported at once: its key, node, exit status or signal, and the end of its stderr. The
summary has a paragraph for each kind: how many tasks, three of their keys with the node, the command, the last lines of
one stderr, and a hint where the cause may be known. 's4 logs ID --failed' has every failure.
"#;

const EVENTS: &str = r#"With --json, the maps, 's4 wait' and copies between S3 and the cluster print events, a JSON object a line. The field
'event' is the name of the event. Later versions may have more fields and events.

  planned    The first. 'job', 'kind', 'indir', 'outdir'; 'tasks' to run, their 'keys' and 'bytes', tasks 'done_before',
             tasks 'of_others' which another command made, outputs to be removed since their inputs are 'gone', and the
             'reasons' why tasks run; 'nodes' has the same counts of each 'node'.
  progress   Of one 'node': 'tasks', 'done', 'failed', 'running', 'outputs' published, 'bytes' of all inputs,
             'bytes_done'.
  failure    Of one task: 'node', 'key', 'reason', and 'stderr', the end of it.
  running    Of one 'node': 'tasks' that have run for longest, each with 'key' and 'seconds'.
  ended      The last. 'job', 'state' ('done', 'failed', 'cancelled' or 'interrupted'), the counts of 'progress' over
             all nodes, 'done_before', 'seconds', and 'error' if the state is not 'done'.

Example: the keys that failed
  s4 map --keep-going --json s4://in/ s4://out/ sort |
      jq -r 'select(.event == "failure").key'
"#;

const ENVIRONMENT: &str = r#"What a command of a map finds in its environment:

  filename         the basename of its key, or the merge name
  S4_KEY           the key: s4://bucket/dir/name; in a map-from-n the first of its keys
  S4_JOB, S4_TASK  the id of the job, and the number of the task on this node
  S4_NODE          the number of this node; S4_NODES: how many there are
  S4_TASK_DIR      the directory of the task, by which s4 finds all its processes

It has the daemon's environment too. If an s4 is beside s4-server, it is first on PATH, so that both are of one version;
'--env PATH=...' replaces that.

Example: the name before each line
  s4 map s4://in/ s4://out/ 'sed "s/^/$filename,/"'

What s4 itself looks at:

  S4_CONF_PATH     the cluster file, if there is no --conf-path; else ~/.s4.conf
  S4_SECRET_PATH   the file of the shared secret; else the one beside the cluster file
  S4_DEADLINE      seconds that a node may be silent
  ALL_PROXY        socks5h://host:port, a SOCKS5 proxy such as that of 'ssh -D', through which nodes are reached; with
                   'user:password@' before the host if it needs them. With socks5://, names are looked up here. Other
                   proxies are ignored.
  NO_PROXY         hosts and domains with commas, or '*', that are reached directly, as loopback addresses are
"#;

const FILES: &str = r#"  ~/.s4.conf           The cluster file: one 'host:port' a line, IPv6 in brackets. Blank lines and lines that begin with
                       '#' are skipped. The order is the numbers of the nodes, from 0, and must be the same everywhere.
  ~/.s4.conf.secret    Beside the cluster file, if the daemons require a secret: its first line.
  ~/.s4.conf.hosts     Beside the cluster file of a cluster that 's4 cluster up' has made: how ssh calls the hosts.
  DIR/s4.conf          The cluster file of 's4 local', whose --dir is DIR. The data of node N is in DIR/node-N, and its
                       log in DIR/node-N.log.

Example: a cluster file
  printf '%s:8080\n' node0 node1 node2 > ~/.s4.conf
"#;

const EXIT: &str = r#"Exit statuses of s4:

  0      done
  1      failed, or nothing found
  2      wrong usage
  other  's4 eval' and a map with --try exit with the status of the command, or 128 + the number of its signal

A map or 's4 wait' that Ctrl-C or SIGTERM ends dies by that signal, so that a calling script ends too.

Example
  s4 map s4://in/ s4://out/ 'sort' && s4 cp -r s4://out/ out
"#;
