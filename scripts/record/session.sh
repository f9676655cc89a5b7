# The session that scripts/record.sh records. Each line is typed; a line that begins with # is shown as a comment.
# A year of flights, on three nodes.
s4 cp -r flights/ s4://in/
# A map in three languages: awk, Python, Perl. Commands run where the keys are.
s4 map s4://in/ s4://late/ 'awk -F, "\$9 > 60 { print \$10, \$9 }"'
s4 map --file hours.py s4://in/ s4://hours/ 'python3 hours.py'
s4 map s4://in/ s4://planes/ 'perl -F, -lane "print \$F[11]"'
# The shuffle, by airline: equal names come to one node. Then the merge.
s4 map-to-n s4://late/ s4://airlines/ 'awk "{ print > \$1 }"; ls'
s4 map-from-n s4://airlines/ s4://counts/ 'xargs cat | wc -l'
# The whole cluster is also a directory.
s4 mount mnt --background
ls mnt
grep . mnt/counts/* | sort -t: -k2 -n | tail -3
# What made this key?
s4 why s4://counts/UA
