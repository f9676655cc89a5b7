"""Rows of whole jobs: what people use a cluster for, against the same commands on plain files."""

import os


def flights(bench):
    """The steps of scripts/demo.sh that touch every row of the data, with the data repeated."""
    times = bench.full(20, 1)
    bench.sh("mkdir unpacked && tar -C unpacked --strip-components=1 -xJf " + str(bench.root / "tests/data/flights.tar.xz"))
    bench.sh(
        "mkdir flights && for f in unpacked/*; do n=$(basename $f)"
        f"; {{ head -n 1 $f; for i in $(seq {times}); do tail -n +2 $f; done; }} > flights/$n; done"
    )
    bench.sh("s4 cp -r flights s4://flights/")
    slots = bench.nodes * (os.cpu_count() + 2)
    (bench.work / "keep").write_text("cut -d, -f10,16\n")
    (bench.work / "count").write_text("""awk -F, 'NR > 1 { n[$1]++ } END { for (c in n) print c, n[c] }'\n""")
    (bench.work / "part").write_text(
        """awk -F, 'NR > 1 { f = sprintf("origin_%s_%03d.csv", $13, NR % 12); print > f }'; ls\n"""
    )
    (bench.work / "sum").write_text("""awk -F, '{ n++; miles += $16 } END { print $13, n, miles }'\n""")
    each = f"xargs -P {slots} -I{{}} bash -c"
    bare = f"""
        mkdir -p f_RUN/1 f_RUN/2 f_RUN/5 f_RUN/6 f_RUN/7
        ls flights | {each} '. ./keep < flights/{{}} > f_RUN/1/{{}}'
        ls f_RUN/1 | {each} '. ./count < f_RUN/1/{{}} > f_RUN/2/{{}}'
        cat f_RUN/2/* | awk '{{ n[$1] += $2 }} END {{ for (c in n) print c, n[c] }}' > f_RUN/counts
        ls flights | {each} 'mkdir f_RUN/5/{{}}; cd f_RUN/5/{{}}; . ../../../part < ../../../flights/{{}} > /dev/null'
        find f_RUN/5 -name 'origin_*' -printf '%f\\n' | sort -u | {each} 'cat f_RUN/5/*/{{}} > f_RUN/6/{{}}'
        ls f_RUN/6 | {each} '. ./sum < f_RUN/6/{{}} > f_RUN/7/{{}}'
        cat f_RUN/7/* > f_RUN/rows
    """
    files = "--file keep --file count --file part --file sum"
    s4 = f"""
        s4 map {files} s4://flights/ s4://f_RUN/1/ '. ./keep'
        s4 map {files} s4://f_RUN/1/ s4://f_RUN/2/ '. ./count'
        s4 map-to-n s4://f_RUN/2/ s4://f_RUN/3/ 'cat > counts && echo counts'
        s4 map-from-n s4://f_RUN/3/ s4://f_RUN/4/ 'xargs -d "\\n" cat | awk "{{ n[\\$1] += \\$2 }} END {{ for (c in n) print c, n[c] }}"'
        s4 map-to-n {files} s4://flights/ s4://f_RUN/5/ '. ./part'
        s4 map-from-n s4://f_RUN/5/ s4://f_RUN/6/ 'xargs -d "\\n" cat'
        s4 map {files} s4://f_RUN/6/ s4://f_RUN/7/ '. ./sum'
        s4 map-to-n s4://f_RUN/7/ s4://f_RUN/8/ 'cat > rows && echo rows'
        s4 map-from-n s4://f_RUN/8/ s4://f_RUN/9/ 'xargs -d "\\n" cat'
    """
    last = "rm -rf f_*; s4 rm -r s4://f_ 2>/dev/null || true"
    bench.row("the flights job, data of 600 MB", (last, bare), (last, s4), 1.3, runs=3)
    bench.sh("rm -rf f_*; s4 rm -r s4://f_ 2>/dev/null || true; s4 rm -r s4://flights/")


def lines(bench):
    """12 inputs of random lines, 600 MB together, and the same as keys, unless they are there."""
    if (bench.work / "lines").exists():
        return
    size = bench.full(50_000_000, 1_000_000)
    bench.sh(
        f"mkdir lines && for i in $(seq -f %03.0f 0 11); do head -c {size * 3 // 4} /dev/urandom | base64 -w 99 > lines/$i; done"
    )
    bench.sh("s4 cp -r lines s4://lines/")


def shuffle(bench):
    lines(bench)
    slots = bench.nodes * (os.cpu_count() + 2)
    each = f"xargs -P {slots} -I{{}} bash -c"
    split = "split -n r/12 -d -a 3 --additional-suffix=_part - p"
    # A number in front says the node, as in p000: so that all outputs of a name come together.
    names = "for f in p*; do mv $f ${f#p}; done; ls"
    bare = f"""
        mkdir -p s_RUN/parts s_RUN/merged
        ls lines | {each} 'mkdir s_RUN/parts/{{}}; cd s_RUN/parts/{{}}; {split} < ../../../lines/{{}}; {names}' > /dev/null
        seq -f %03.0f_part 0 11 | {each} 'cat s_RUN/parts/*/{{}} > s_RUN/merged/{{}}'
    """
    s4 = f"""
        s4 map-to-n s4://lines/ s4://s_RUN/parts/ '{split}; {names}'
        s4 map-from-n s4://s_RUN/parts/ s4://s_RUN/merged/ 'xargs -d "\\n" cat'
    """
    last = "rm -rf s_*; s4 rm -r s4://s_ 2>/dev/null || true"
    bench.row("shuffle of 600 MB, 12 to 12 x 12, and merge", (last, bare), (last, s4), 1.4)
    bench.sh(last)


def sort(bench):
    """A sort by ranges of the first character, of which base64 has 64, all as likely. The 12 sorts that run at once have
    together less memory than the bare one."""
    lines(bench)
    memory = "256M"
    (bench.work / "ranges").write_text(
        # The lines are sorted, so the range changes seldom.
        """awk '{ c = substr($0, 1, 1) } c != last { f = sprintf("%03d_range", int(index("+/0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", c) * 12 / 65)); last = c } { print > f }'; ls\n"""
    )
    bare = f"mkdir t_RUN; cat lines/* | sort -S {memory} --parallel=2 -T t_RUN > t_RUN/sorted"
    s4 = f"""
        s4 map s4://lines/ s4://t_RUN/1/ 'sort -S 10M'
        s4 map-to-n --file ranges s4://t_RUN/1/ s4://t_RUN/2/ '. ./ranges'
        s4 map-from-n s4://t_RUN/2/ s4://t_RUN/3/ 'xargs -d "\\n" sort -S 10M -m'
    """
    last = "rm -rf t_*; s4 rm -r s4://t_ 2>/dev/null || true"
    bench.row("sort of 600 MB", (last, bare), (last, s4), 1, runs=3)
    bench.sh(last + "; rm -rf lines; s4 rm -r s4://lines/")


def tasks(bench):
    many, nodes = bench.full(20_000, 500), bench.full(12, 3)
    bench.start(nodes, "twelve")
    bench.sh(f"mkdir tiny && cd tiny && seq {many} | xargs touch && cd .. && s4 cp -r tiny s4://tiny/")
    slots = nodes * (os.cpu_count() + 2)
    bench.row(
        f"{many} tasks of 'true' over {nodes} nodes",
        f"seq {many} | xargs -P {slots} -I{{}} bash -c true",
        "s4 map s4://tiny/ s4://t_RUN/ true",
        extra=0.0003 * many,
        runs=2,
    )
    bench.end("twelve")


def listing(bench):
    many = bench.full(1_000_000, 5_000)
    bench.start(bench.nodes, "million")
    bench.sh(f"mkdir million_keys && cd million_keys && seq {many} | xargs touch && cd .. && s4 cp -r million_keys s4://million/")
    bench.row(
        f"ls of {many} keys",
        "find million/node-*/million -type f -printf '%TY-%Tm-%Td %TT %s %f\\n' > /dev/null",
        "s4 ls s4://million/ > /dev/null",
        3,
        runs=3,
    )
    bench.end("million")
    bench.sh("rm -rf million_keys")
