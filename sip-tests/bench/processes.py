"""Start and stop children, find free ports, read CPU time from /proc. Standard library only."""
import atexit, os, shutil, signal, socket, subprocess, sys, time

HZ = os.sysconf("SC_CLK_TCK")


def need(**packages):
    """Stop with a readable line when a program is not installed: need(sipp="sip-tester")."""
    missing = [program for program in packages if not shutil.which(program)]
    if missing:
        wanted = " ".join(packages[program] for program in missing)
        sys.exit(f"not installed: {' '.join(missing)}; install: apt-get install {wanted}")


def say(text):
    """For people; standard output holds JSON alone."""
    print(text, file=sys.stderr, flush=True)


class Child:
    """A process with its output in a file; it does not outlive this script."""

    def __init__(self, argv, log, cwd=None, stdin=subprocess.DEVNULL, env=None):
        self.log = log
        with open(log, "ab") as out:
            self.p = subprocess.Popen(argv, stdin=stdin, stdout=out, stderr=subprocess.STDOUT, cwd=cwd,
                                      env=dict(os.environ, TERM="dumb", **(env or {})))
        self.pid = self.p.pid
        atexit.register(self.stop)

    def stop(self, wait=10):
        """Ask it to end, then make it."""
        if self.p.poll() is None:
            self.p.send_signal(signal.SIGTERM)
            try:
                self.p.wait(wait)
            except subprocess.TimeoutExpired:
                self.p.kill()
                self.p.wait()

    def tail(self):
        """The last lines that it wrote."""
        with open(self.log, errors="replace") as f:
            return "".join(f.readlines()[-20:])


def cpu(pid):
    """User and system CPU seconds of a process so far, to the nanosecond where the kernel tells."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            total += int(open(f"/proc/{pid}/task/{task}/schedstat").read().split()[0])
        except (OSError, ValueError, IndexError):
            pass
    if total:
        return total / 1e9
    stat = open(f"/proc/{pid}/stat").read()
    fields = stat[stat.rindex(")") + 2:].split()
    return (int(fields[11]) + int(fields[12])) / HZ


def rss_mib(pid):
    """Resident memory."""
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def pss_mib(pid):
    """Memory of a process with its share of what it has in common with others."""
    for line in open(f"/proc/{pid}/smaps_rollup"):
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def family(pid):
    """A process and all that descend from it."""
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = open(f"/proc/{entry}/stat").read()
        except OSError:
            continue
        parents.setdefault(int(stat[stat.rindex(")") + 2:].split()[1]), []).append(int(entry))
    found, at = [pid], 0
    while at < len(found):
        found += parents.get(found[at], [])
        at += 1
    return found


def free_ports(count):
    """The first of `count` neighbouring ports of 127.0.0.1 that are free for UDP and TCP."""
    def free(port):
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(socket.AF_INET, kind) as s:
                try:
                    s.bind(("127.0.0.1", port))
                except OSError:
                    return False
        return True
    start = 6100 + os.getpid() % 97 * 37
    for base in list(range(start, 9900)) + list(range(6100, start)):
        if all(free(base + n) for n in range(count)):
            return base
    sys.exit(f"no {count} neighbouring free ports")


def until(what, ask, seconds=60):
    """Ask again and again until the answer is true."""
    end = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > end:
            sys.exit(f"{what}: not within {seconds} s")
        time.sleep(0.05)
