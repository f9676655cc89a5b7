//! `s4 help TOPIC`: what concerns more than one command.

/// The names of the topics, and their texts.
pub const TOPICS: [(&str, &str); 4] = [("maps", MAPS), ("names", NAMES), ("environment", ENVIRONMENT), ("exit", EXIT)];

/// The text of a topic; `None` if there is no such topic.
pub fn text_of(topic: &str) -> Option<&'static str> {
    TOPICS.iter().find(|(name, _)| *name == topic).map(|(_, text)| *text)
}

const MAPS: &str = r#"A map runs one shell command many times, next to the data.

  s4 map INDIR OUTDIR CMD          once for each key; stdin is the key, stdout the new key of the same name
  s4 map-to-n INDIR OUTDIR CMD     once for each key; each file that CMD writes and whose name it prints goes to the
                                   node that its name decides, as OUTDIR/INPUT/FILE
  s4 map-from-n INDIR OUTDIR CMD   once for each name; stdin lists the paths of all keys of that name, and stdout is
                                   the new key

Examples
  s4 map s4://in/ s4://out/ 'grep -c error'
  s4 map-to-n s4://in/ s4://parts/ 's4 partition -n 96 -d, -k3'
  s4 map-from-n s4://parts/ s4://merged/ 'xargs -d "\n" cat | sort'

The command is run by bash under 'set -euo pipefail', with LC_ALL=C, in an empty directory that is removed afterwards.
Its output becomes a key only after it has succeeded. No key is ever overwritten.

  --try            run the command on one key, keep nothing, and estimate the whole
  --file PATH      put a script or a table into the directory of every task
  --ok-exit 0,1    exit statuses that mean success: grep exits with 1 if it finds nothing
  --resume         run only the tasks that are not done; --update: also those whose command or inputs have changed

A map is a job: 's4 jobs', 's4 wait ID', 's4 logs ID', 's4 cancel ID'. 's4 why KEY' says what made a key.
"#;

const NAMES: &str = r#"A key is s4://bucket/dir/name. Only its basename, the last part, decides on which node it is.

  000_a, 3_x, 12   a number before the first _, or alone: node number modulo nodes
  UA, x.csv        anything else is hashed: always the same node of a given cluster

So keys of one basename are on one node, whatever their directories, and map-from-n brings them together. To choose
nodes yourself, begin the names with numbers.

Examples
  s4 map-to-n s4://in/ s4://parts/ 'awk "{ print > (\$1 % 12) \"_part\" }"; ls'
  s4 config            # the nodes and their numbers

A name is UTF-8 without whitespace and control characters. No part is empty, . or .., or longer than 255 bytes;
bucket and key have at most 1,024. A bucket does not begin with . or _. A name is a key or a directory, never both.
"#;

const ENVIRONMENT: &str = r#"What a command of a map finds in its environment:

  filename         the basename of its key, or the merge name
  S4_KEY           the key: s4://bucket/dir/name
  S4_JOB, S4_TASK  the job and the task
  S4_NODE          the number of this node; S4_NODES: how many there are
  S4_TASK_DIR      the directory of the task

Example
  s4 map s4://in/ s4://out/ 'sed "s/^/$filename,/"'      # the name before each line

What s4 itself looks at:

  S4_CONF_PATH     the cluster file, if there is no --conf-path; else ~/.s4.conf
  S4_SECRET_PATH   the file of the shared secret; else the one beside the cluster file
  S4_DEADLINE      seconds that a node may be silent
"#;

const EXIT: &str = r#"Exit statuses of s4:

  0      done
  1      failed, or nothing found
  2      wrong usage
  other  's4 eval' and a map with --try exit with the status of the command, or 128 + the number of its signal

A map or wait that Ctrl-C or SIGTERM ends dies by that signal, so that a calling script ends too.

Example
  s4 map s4://in/ s4://out/ 'sort' && s4 cp -r s4://out/ out
"#;
