
# Raw: what a command writes is what arrives on the other side.
stty -F /dev/ttyS1 raw
mkfifo /run/output
cd /tmp
echo 'ironclad: commands begin' > /dev/kmsg

say() {
	printf '\n%s%s\n' "$mark" "$*" > /dev/ttyS1
}

# What a command left behind would keep the pipe open, and be there for the next one.
kill_all_but() {
	for process in /proc/[0-9]*; do
		process=${process#/proc/}
		case $process in
		1 | $$ | "$1") ;;
		*) readlink "/proc/$process/exe" > /dev/null && kill -9 "$process" ;;
		esac
	done
}

# Through a pipe, lest a command takes the line for a terminal.
run() {
	say begin "$1"
	read -r began _ < /proc/uptime
	cat /run/output > /dev/ttyS1 &
	cat=$!
	timeout -k 5 "$limit" "/command/$1" < /dev/null > /run/output 2>&1
	status=$?
	kill_all_but $cat
	wait $cat
	read -r ended _ < /proc/uptime
	say end $status "$(echo "$ended $began - p" | dc)"
}
