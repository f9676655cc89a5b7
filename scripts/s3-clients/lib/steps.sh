# What the shell scripts of this directory share. Each defines functions with the names of operations and calls `steps put get ...`, which
# prints one line for each. S3_ENDPOINT, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, BUCKET and WORK come from scripts/s3-clients.sh.
# In a condition, `set -e` would not hold in the functions: hence the comparisons of $?.
# shellcheck shell=bash disable=SC2034,SC2181
# 1,000 lines; another file of the same name but not of its size; 20 MiB, which every client sends in parts.
small=$WORK/small other=$WORK/other large=$WORK/large got=$WORK/got

line() { printf '%s\t%s\t%s\n' "$1" "$2" "$(tr -s '[:space:]' ' ' <<<"${3-}" | cut -c1-300)"; }

steps() { # steps FUNCTION...: each must succeed
    local operation said
    for operation in "$@"; do
        rm -rf "$got"
        said=$(set -e; "$operation" 2>&1)
        if [ $? = 0 ]; then line "$operation" ok; else line "$operation" FAIL "$said"; fi
    done
}

refused() { # refused WORDS FUNCTION: must fail and say what matches the pattern WORDS. Shows what it said
    local said
    said=$(set -e; "$2" 2>&1)
    if [ $? = 0 ]; then
        line "$2" FAIL "it was not refused"
    elif grep -qE "$1" <<<"$said"; then
        line "$2" ok "$said"
    else
        line "$2" FAIL "$said"
    fi
}

lacks() { # lacks OPERATION...: the client has no such operations
    local operation
    for operation in "$@"; do line "$operation" none "the client has no such operation"; done
}

stored() { # stored KEY FILE: the cluster itself has the bytes of FILE under the key
    [ -z "${S4_CONF_PATH-}" ] || s4 cp "s4://$BUCKET/$1" - | cmp - "$2"
}

# What clients make of the answers 412 and 403.
taken='PreconditionFailed|Precondition Failed|412|precondition|already'
forbidden='SignatureDoesNotMatch|Forbidden|AccessDenied|Access ?Denied|403'
