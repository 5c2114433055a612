"""Processes of this program for the interop table: peers, rings of three, plain phones. Standard library only."""
import json, os, re, shutil, socket, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
INTEROP = os.path.join(HERE, "..")
sys.path.insert(0, os.path.join(HERE, "..", "..", "bench"))
from processes import Child

PASSWORD = "s3cret"
# The commands of one cell inherit it: nobody's microphone, and no other data directory.
os.environ["PULSE_SERVER"] = "none"
os.environ.pop("CHORDIAL_DATA", None)
program = ["chordial"]
scratch = tempfile.mkdtemp(prefix="chordial-table-")
counted = 0


class Failed(Exception):
    """The cell is not ok, and what was seen."""


class Cannot(Exception):
    """The cell cannot be run, and why."""


def unique(name):
    global counted
    counted += 1
    return os.path.join(scratch, f"{counted:03d}-{name}")


def write(path, text):
    with open(path, "w") as f:
        f.write(text)
    return path


def read(path):
    try:
        with open(path, errors="replace") as f:
            return f.read()
    except OSError:
        return ""


def see(what, ask, seconds=20):
    """Asks until the answer is true, and returns it; `ask` may raise Failed to tell what it sees instead."""
    end, last = time.monotonic() + seconds, ""
    while True:
        try:
            answer = ask()
            if answer:
                return answer
        except Failed as e:
            last = f"; seen: {e}"
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds} s{last}")
        time.sleep(0.1)


HOSTS = {"ipv4": "127.0.0.1", "ipv6": "::1"}
next_port = 20000 + os.getpid() % 113 * 97


def ports(count):
    """The first of `count` neighbouring ports of loopback that nobody has, and that were not given away before."""
    global next_port

    def free(port):
        for host, kind in ((h, k) for h in HOSTS.values() for k in (socket.SOCK_DGRAM, socket.SOCK_STREAM)):
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as s:
                try:
                    s.bind((host, port))
                except OSError:
                    return False
        return True

    for base in range(next_port, 32000, count):
        if all(free(base + n) for n in range(count)):
            next_port = base + count
            return base
    raise Failed("no free ports")


def at(family, port):
    return f"[::1]:{port}" if family == "ipv6" else f"127.0.0.1:{port}"


def listens(family, port, kind=socket.SOCK_STREAM):
    """True once somebody has the port."""
    with socket.socket(socket.AF_INET6 if family == "ipv6" else socket.AF_INET, kind) as s:
        try:
            s.bind((HOSTS[family], port))
        except OSError:
            return True
    return False


class Peer:
    """A running `chordial start` and the commands that a person would type."""

    def __init__(self, name, sip, overlay, args):
        self.name, self.sip, self.overlay = name, sip, overlay
        self.data = unique(name)
        os.makedirs(self.data)
        argv = [program[0], "start", "--headless", "--data", self.data, "--name", name, "--sip-listen", sip]
        self.child = Child(argv + args, self.data + ".log")

    def run(self, *args, seconds=30):
        """The last line of a command's JSON and whether it said that the thing was done."""
        done = subprocess.run([program[0], *args, "--json", "--data", self.data], capture_output=True, text=True, timeout=seconds)
        lines = done.stdout.strip().splitlines()
        try:
            return json.loads(lines[-1]), done.returncode == 0
        except (IndexError, ValueError):
            return {"said": (done.stdout + done.stderr).strip()}, done.returncode == 0

    def do(self, *args):
        answer, ok = self.run(*args)
        if not ok:
            raise Failed(f"`{' '.join(args)}` of {self.name}: {answer}")
        return answer

    def alive(self):
        if self.child.p.poll() is not None:
            raise Failed(f"{self.name} ended: {self.child.tail()[-300:]}")

    def status(self):
        self.alive()
        return self.run("status")[0]

    def joined(self):
        see(f"{self.name} joins", lambda: self.status().get("overlay", {}).get("state") == "joined")

    def registered(self, user):
        """The contacts of a user that are registered here."""
        for one in self.status().get("registrations", []):
            if one["aor"].startswith(f"sip:{user}@"):
                return one["contacts"]
        return []

    def finds(self, user):
        see(f"{self.name} finds {user}", lambda: self.run("lookup", user)[0].get("found"))

    def calls(self, what, fits):
        def ask():
            calls = self.status().get("calls", [])
            if fits(calls):
                return calls or True
            raise Failed(json.dumps([{k: c.get(k) for k in ("with", "state", "held_by")} for c in calls]))
        return see(f"{what} (calls of {self.name})", ask)

    def talks_with(self, other):
        fits = lambda c: len(c) == 1 and other in c[0]["with"] and c[0]["state"] == "answered"
        return self.calls(f"{self.name} talks with {other} alone", fits)[0]

    def idle(self):
        self.calls("no call is left", lambda c: not c)

    def call(self, target, *args):
        """A `call` in the background; `report` waits for its end."""
        log = unique("call")
        child = Child([program[0], "call", target, *args, "--json", "--data", self.data], log)

        def report(seconds=40):
            try:
                child.p.wait(seconds)
            except subprocess.TimeoutExpired:
                child.stop()
                raise Failed(f"the call of {self.name} to {target} does not end: {read(log)[-300:]}")
            lines = read(log).strip().splitlines()
            try:
                return json.loads(lines[-1])
            except (IndexError, ValueError):
                raise Failed(f"the call of {self.name} to {target}: {read(log)[-300:]}")
        return report

    def stop(self):
        self.child.stop(5)


def completed(report, voice=True):
    if report.get("result") != "completed":
        raise Failed(f"the call ended so: {report}")
    if voice and not report.get("received"):
        raise Failed(f"no voice came: {report}")


class Ring:
    """alice, who has the phones' accounts, and bob and carol, who answer."""

    def __init__(self, family, extra=()):
        self.family, self.overlay, self.peers = family, "table.test", []
        accounts = write(unique("phones.csv"), "".join(f"{user},{PASSWORD}\n" for user in ("desk", "hall")))
        try:
            for name, args in (("alice", ["--phones", accounts]), ("bob", ["--auto-answer"]), ("carol", ["--auto-answer"])):
                base = ports(2)
                overlay = at(family, base + 1)
                args = [*args, "--open", "--overlay", self.overlay, "--overlay-listen", overlay, "--discover", "none", "--map-port",
                        "none", "--role", "supernode", "--strangers", "anyone", "--audio-in", "tone", *extra]
                if self.peers:
                    args += ["--bootstrap", self.peers[0].overlay]
                config = os.path.join(scratch, f"{name}.toml")
                if extra == () and os.path.exists(config):
                    args += ["--config", config]
                self.peers.append(Peer(name, at(family, base), overlay, args))
                self.peers[-1].joined()
            self.alice, self.bob, self.carol = self.peers
            for peer, other in ((self.alice, "bob"), (self.bob, "carol"), (self.alice, "carol"), (self.carol, "bob")):
                peer.finds(other)
        except BaseException:
            self.stop()
            raise

    def aor(self, user):
        return f"sip:{user}@{self.overlay}"

    def idle(self):
        for peer in self.peers:
            peer.idle()

    def stop(self):
        for peer in reversed(self.peers):
            peer.stop()


def plain_phone(user, password, registrar, transport, family, *args):
    """A phone of ours with an account at a registrar."""
    secret, config = write(unique("secret"), password + "\n"), unique(user + ".toml")
    write(config, f'[phone]\ntransport = "{transport}"\n' if transport != "udp" else "")
    sip = at(family, ports(2))
    return Peer(user, sip, sip, ["--config", config, "--registrar", registrar, "--password-file", secret, "--audio-in", "tone", *args])


def clean():
    shutil.rmtree(scratch, ignore_errors=True)


def requests(method, text):
    """The heads of requests in a trace."""
    return [m.group(0) for m in re.finditer(rf"(?m)^{method} sips?:[^\r\n]* SIP/2\.0\r?\n(?:[^\r\n]+\r?\n)+", text)]


def answer_to(method, text, call=""):
    """The final answers to a method (of one call) in a trace, such as `489 Bad Event`."""
    for found in re.finditer(r"SIP/2\.0 ([2-6]\d\d[^\r\n]*)\r?\n((?:[^\r\n]+\r?\n)+)", text):
        if call in found.group(2) and re.search(rf"(?im)^CSeq:\s*\d+ {method}", found.group(2)):
            yield found.group(1).strip()
