#!/bin/sh
# Gives what Exim's appendfile transport wrote to the agent: hand-over.sh [FOLDER [URL]]. Run it from a timer or a path unit, as the user of that transport.
#
# A file goes when the agent has its mail on disk (0). It stays for the next run where nobody can tell (75), and is put aside in bad/ when the agent refuses it
# for good: look at it, and answer its sender.
set -u
folder=${1:-/var/spool/lightpost-exim}
url=${2:-http://127.0.0.1:8025}
lightpost=${LIGHTPOST:-/usr/bin/lightpost}
left=0
for file in "$folder"/new/*; do
    [ -f "$file" ] || continue
    # The file's name makes a repeat after a crash the same hand-over.
    "$lightpost" submit --batch --id "${file##*/}" --url "$url" <"$file"
    case $? in
    0) rm -f "$file" ;;
    65 | 77) mkdir -p "$folder/bad" && mv "$file" "$folder/bad/" ;;
    *) left=75 ;;
    esac
done
exit $left
