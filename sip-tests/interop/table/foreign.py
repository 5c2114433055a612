"""Phones that others wrote, each with the same few verbs: baresip, linphone, JsSIP. And sipp, which runs scenarios."""
import glob, json, math, os, re, socket, struct, subprocess, time, wave
from ours import HOSTS, INTEROP, PASSWORD, Cannot, Child, Failed, answer_to, at, ports, read, requests, see, unique, write

MODULES = ("/usr/lib/baresip/modules", "/usr/lib/x86_64-linux-gnu/baresip/modules", "/usr/local/lib/baresip/modules")


def tone(rate, seconds=90):
    """A file with a tone that lasts longer than any cell."""
    path = unique("tone.wav")
    one = b"".join(struct.pack("<h", int(8000 * math.sin(2 * math.pi * 400 * n / rate))) for n in range(rate))
    with wave.open(path, "wb") as f:
        f.setparams((1, 2, rate, 0, "NONE", ""))
        f.writeframes(one * seconds)
    return path


class Phone:
    """What all have: a log, and a mark in it from which on things are looked for."""
    media, held_words = True, ()

    def log(self):
        return read(self.log_file)

    def settle(self):
        """Waits for the end of what was before."""

    def mark(self):
        self.marked = len(self.log())

    def logged(self, what, pattern, seconds=20):
        """Waits for a pattern in what was written since the mark."""
        def ask():
            if self.child.p.poll() is not None:
                raise Failed("it has ended: " + self.log()[-200:])
            return re.search(pattern, self.log()[self.marked:], re.S)
        found = see(f"{self.name}: {what}", ask, seconds)
        return found

    def subscribed(self, event):
        """What became of its SUBSCRIBE: Cannot when the program refuses it."""
        start = lambda: self.log()[:100_000]
        asked = lambda: [m for m in requests("SUBSCRIBE", start()) if f"Event: {event}" in m]
        see(f"{self.name} asks for {event}", asked, 15)

        def answered():
            if any("Record-Route:" in m for m in asked()):
                raise Cannot(f"the program does not do it: SUBSCRIBE for {event} came back to the phone that sent it")
            calls = {re.search(r"(?im)^Call-ID:[^\r\n]*", m).group(0) for m in asked()}
            answers = [a for call in sorted(calls) for a in answer_to("SUBSCRIBE", start(), call)]
            if not answers and len(calls) > 20:
                raise Cannot(f"{self.name} asks for {event} without a pause and takes no answer")
            return next((a for a in answers if not a.startswith(("401", "407"))), None)
        answer = see(f"{self.name}'s SUBSCRIBE is answered", answered, 15)
        if not answer.startswith("2"):
            raise Cannot(f"the program does not do it: SUBSCRIBE for {event} was answered {answer}")
        see(f"a NOTIFY for {event} comes to {self.name}", lambda: "NOTIFY sip:" in self.log(), 15)

    def stop(self):
        self.child.stop(5)


class Baresip(Phone):
    """baresip-core over `ctrl_tcp`: JSON in netstrings, one client, events before our connection are lost."""
    name = "baresip"

    def __init__(self, ring, transport, user="desk", password=PASSWORD, watches=""):
        self.ring, self.user, self.dir = ring, user, unique("baresip")
        os.makedirs(self.dir)
        base, host, peer = ports(12), HOSTS[ring.family], ring.alice
        trusted = f"sip_cafile {peer.data}/phones.pem\nsip_verify_server yes\n" if transport == "tls" else ""
        modules = next((m for m in MODULES if os.path.isdir(m)), MODULES[0])
        listen = at(ring.family, base)
        write(self.dir + "/config", f"""poll_method epoll
sip_listen {listen}
net_interface {host}
module_path {modules}
call_local_timeout 60
audio_player aubridge,p
audio_alert aubridge,a
audio_source aufile,{tone(8000)}
ausrc_srate 8000
auplay_srate 8000
ausrc_channels 1
auplay_channels 1
rtp_ports {base + 4}-{base + 11}
snd_path {self.dir}
ctrl_tcp_listen 127.0.0.1:{base + 2}
module g711.so
module aufile.so
module aubridge.so
module_tmp uuid.so
module_tmp account.so
module_app contact.so
module_app menu.so
module_app ctrl_tcp.so
{f"module_app {watches}.so" if watches else ""}
{trusted}""")
        server = peer.overlay if transport == "tls" else peer.sip
        write(self.dir + "/accounts", f'<sip:{user}@{ring.overlay};transport={transport}>;regint=600;audio_codecs=PCMU/8000/1;'
              f'answermode=auto;outbound="sip:{server};transport={transport}";auth_user={user};auth_pass={password};'
              f'mwi={"yes" if watches == "mwi" else "no"}\n')
        write(self.dir + "/contacts", f'"bob" <{ring.aor("bob")}>' + (";presence=p2p" if watches == "presence" else "") + "\n")
        self.log_file = self.dir + "/log"
        six = ["-6"] if ring.family == "ipv6" else []
        self.child = Child(["baresip", "-s", *six, "-f", self.dir], self.log_file)
        self.events, self.taken, self.buffer = [], 0, b""
        see("baresip takes commands", lambda: self.connect(base + 2), 10)
        self.mark()

    def connect(self, port):
        if self.child.p.poll() is not None:
            raise Failed("it has ended: " + self.log()[-300:])
        try:
            self.control = socket.create_connection(("127.0.0.1", port), 1)
        except OSError as e:
            raise Failed(str(e))
        self.control.settimeout(0.1)
        return True

    def tell(self, command, params=""):
        text = json.dumps({"command": command, "params": params, "token": "t"}).encode()
        self.control.sendall(b"%d:%s," % (len(text), text))

    def event(self, *kinds):
        """The next event of these kinds; each is taken once."""
        def ask():
            try:
                self.buffer += self.control.recv(65536)
            except OSError:
                pass
            while b":" in self.buffer:
                length, _, rest = self.buffer.partition(b":")
                if len(rest) <= int(length):
                    break
                self.events.append(json.loads(rest[:int(length)]))
                self.buffer = rest[int(length) + 1:]
            while self.taken < len(self.events):
                self.taken += 1
                if self.events[self.taken - 1].get("type") in kinds:
                    return self.events[self.taken - 1]
            raise Failed(str([(e.get("type"), e.get("param")) for e in self.events if e.get("type")][-8:]))
        return see(f"baresip tells {' or '.join(kinds)}", ask)

    def registers(self):
        see("baresip says that it is registered", lambda: re.search(r"SIP/2\.0 200[^\n]*\n(?:[^\n]+\n)*?CSeq: \d+ REGISTER", self.log()))

    def refused(self):
        return see("baresip is refused", lambda: next((a for a in list(answer_to("REGISTER", self.log()))[1:] if a[0] == "4"), None))

    def dial(self, aor):
        self.tell("dial", aor)

    def talks(self):
        self.event("CALL_ESTABLISHED")

    def ended(self):
        self.event("CALL_CLOSED")

    def hangup(self):
        self.tell("hangup")

    def hold(self):
        self.tell("hold")

    def resume(self):
        self.tell("resume")

    def is_held(self):
        self.logged("an offer on hold comes", r"INVITE sip:desk.{0,2500}?a=(sendonly|inactive)")

    def is_resumed(self):
        self.logged("an offer that resumes comes", r"a=(sendonly|inactive).*INVITE sip:desk.{0,2500}?a=sendrecv")

    def transfer(self, aor):
        self.tell("transfer", aor)

    def attended(self, first, second):
        raise Cannot("the menu of baresip 1.0 has no attended transfer")

    def message(self, aor, text):
        self.tell("message", text)  # to its one contact

    def has_message(self, text):
        self.logged(f"{text!r} comes", re.escape(text))


class Linphone(Phone):
    """linphonec: lines on its standard input; what happens stands in its debug log. Its TLS finds no IP address in a certificate's
    alternative names, so that it checks who signed, not the name."""
    name = "linphone"

    def __init__(self, ring, transport, user="desk", password=PASSWORD, sip="", answers=True):
        self.ring, self.dir = ring, unique("linphone")
        for d in (".local/share/linphone", ".config/linphone"):
            os.makedirs(os.path.join(self.dir, d))
        base, host, peer = ports(8), HOSTS[ring.family], ring.alice
        server = peer.overlay if transport == "tls" else peer.sip
        own = {"udp": (base, 0, 0), "tcp": (0, base, 0), "tls": (0, 0, base)}[transport]
        to = f"<sip:{server};transport={transport}>"
        write(self.dir + "/rc", f"""[sip]
sip_port={own[0]}
sip_tcp_port={own[1]}
sip_tls_port={own[2]}
bind_address={host}
guess_hostname=0
use_ipv6={int(ring.family == "ipv6")}
prefer_ipv6={int(ring.family == "ipv6")}
default_proxy=0
media_encryption=none
root_ca={peer.data}/phones.pem
verify_server_certs=1
verify_server_cn=0
contact="Linphone" <sip:{user}@{ring.overlay}>
{sip}
[rtp]
bind_address={host}
audio_rtp_port={base + 2}
[sound]
echocancellation=0
[video]
enabled=0
capture=0
display=0
[misc]
uuid=00000000-0000-4000-8000-{os.getpid():012d}
[auth_info_0]
username={user}
passwd={password}
realm={ring.overlay}
[proxy_0]
reg_proxy={to}
reg_route={to}
reg_identity=sip:{user}@{ring.overlay}
reg_expires=600
reg_sendregister=1
publish=0
dial_escape_plus=0
[friend_0]
url="bob" <{ring.aor("bob")}>
pol=accept
subscribe=1
""")
        self.log_file, said = self.dir + "/debug", self.dir + "/said"
        argv = ["linphonec", "-d", "6", "-l", self.log_file, *(["-a"] if answers else []), "-c", self.dir + "/rc"]
        self.child = Child(argv, said, cwd=self.dir, stdin=subprocess.PIPE, env={"HOME": self.dir})
        self.said = said
        self.mark()
        for line in ("soundcard use files", "play " + tone(16000), "record " + self.dir + "/heard.wav"):
            self.tell(line)

    def tell(self, line):
        try:
            self.child.p.stdin.write((line + "\n").encode())
            self.child.p.stdin.flush()
        except OSError:
            raise Failed("linphonec has ended: " + read(self.said)[-200:])

    def settle(self):
        """Until calls of earlier cells are released, linphonec refuses to do what it is told."""
        see("linphone has no call left", lambda: len(re.findall(r"moving from state LinphoneCallIdle to", self.log()))
            <= len(re.findall(r"moving from state \S+ to LinphoneCallReleased", self.log())))

    def state(self, *names):
        """Waits for a call's state that was entered since the mark."""
        self.logged(f"a call becomes {' or '.join(names)}", r"to (?:state )?\[?LinphoneCall(?:State)?(?:%s)\b" % "|".join(names))

    def registers(self):
        self.logged("it is registered", r"LinphoneRegistrationOk", 25)

    def refused(self):
        self.logged("its registration fails", r"LinphoneRegistrationFailed", 25)
        return next((a for a in list(answer_to("REGISTER", self.log()))[1:] if a[0] == "4"), None)

    def dial(self, aor):
        self.tell("call " + aor)

    def talks(self):
        self.state("StreamsRunning")

    def ended(self):
        self.state("Released", "End")

    def hangup(self):
        self.tell("terminate")

    def hold(self):
        self.tell("pause")
        self.state("Paused")

    def resume(self):
        self.tell("resume")

    def is_held(self):
        self.state("PausedByRemote")

    def is_resumed(self):
        self.logged("the call runs again", r"PausedByRemote.*to (?:state )?\[?LinphoneCall(?:State)?StreamsRunning")

    def transfer(self, aor):
        self.tell("transfer " + aor)

    def attended(self, first, second):
        self.dial(first)
        self.talks()
        self.tell("pause")
        self.state("Paused")
        self.mark()
        self.dial(second)
        self.talks()
        before = len(read(self.said))
        self.tell("calls")
        ids = see("linphonec lists two calls", lambda: (lambda i: i if len(i) == 2 else None)(
            re.findall(r"(?m)^\s*(\d+)\s*\|", read(self.said)[before:])), 5)
        self.tell(f"transfer {ids[0]} --to-call {ids[1]}")

    def message(self, aor, text):
        self.tell(f'chat {aor} "{text}"')

    def has_message(self, text):
        see(f"linphone shows {text!r}", lambda: text in read(self.said))

    def stop(self):
        try:
            self.tell("quit")
            self.child.p.wait(3)
        except (Failed, subprocess.TimeoutExpired):
            pass
        self.child.stop(3)


class JsSip(Phone):
    """JsSIP in node, by `jssip/phone.js`; its media is a description and nothing more."""
    name, media = "jssip", False

    def __init__(self, ring, transport, user="desk", password=PASSWORD):
        home, peer = os.path.join(INTEROP, "jssip"), ring.alice
        if not os.path.isdir(home + "/node_modules/jssip"):
            raise Cannot("JsSIP is not here: npm install --no-package-lock --prefix sip-tests/interop/jssip")
        url = f"wss://{peer.overlay}" if transport == "wss" else f"ws://{peer.sip}"
        self.log_file, self.taken = unique("jssip"), 0
        self.child = Child(["node", home + "/phone.js", url, f"sip:{user}@{ring.overlay}", password], self.log_file,
                           stdin=subprocess.PIPE, env={"NODE_EXTRA_CA_CERTS": peer.data + "/phones.pem"})

    def mark(self):
        pass

    def tell(self, **command):
        self.child.p.stdin.write((json.dumps(command) + "\n").encode())
        self.child.p.stdin.flush()

    def event(self, *kinds):
        def ask():
            lines = [line for line in self.log().split("\n")[:-1] if line.startswith("{")]
            while self.taken < len(lines):
                self.taken += 1
                event = json.loads(lines[self.taken - 1])
                if event["event"] in kinds:
                    return event
            raise Failed(self.log()[-300:])
        return see(f"JsSIP tells {' or '.join(kinds)}", ask)

    def registers(self):
        self.event("registered")

    def refused(self):
        return str(self.event("registrationFailed").get("status"))

    def dial(self, aor):
        self.tell(command="call", target=aor)

    def rings(self):
        self.event("invite")
        self.tell(command="answer")

    def talks(self):
        self.event("confirmed")

    def ended(self):
        self.event("ended")

    def hangup(self):
        self.tell(command="hangup")

    def hold(self):
        self.tell(command="hold")
        self.event("hold")

    def resume(self):
        self.tell(command="unhold")
        self.event("unhold")

    def is_held(self):
        self.event("hold")

    def is_resumed(self):
        self.event("unhold")

    def transfer(self, aor):
        self.tell(command="transfer", target=aor)

    def attended(self, first, second):
        raise Cannot("phone.js keeps one call")

    def message(self, aor, text):
        self.tell(command="message", target=aor, text=text)
        event = self.event("sent", "notSent")
        if event["event"] != "sent":
            raise Failed(f"the MESSAGE was answered {event.get('status')}")

    def has_message(self, text):
        if self.event("message")["text"] != text:
            raise Failed("another text came")


class Sipp:
    """One sipp with a scenario (a file of `scenarios/`, or sipp's own `uac` and `uas`), from its start to its end."""

    def __init__(self, scenario, family, transport, *args):
        self.scenario, self.port, self.family = scenario, ports(8), family
        if transport == "tls":
            raise Cannot("this SIPp is built without TLS")
        self.errors, self.messages, host = unique("sipp.errors"), unique("sipp.messages"), HOSTS[family]
        which = ["-sn", scenario] if scenario in ("uac", "uas") else ["-sf", os.path.join(INTEROP, "scenarios", scenario + ".xml")]
        argv = ["sipp", *which, "-i", f"[{host}]" if ":" in host else host, "-mi", host, "-mp", self.port + 2, "-p", self.port,
                "-t", "u1" if transport == "udp" else "t1", "-nostdin", "-m", 1, "-trace_err", "-error_file", self.errors,
                "-trace_msg", "-message_file", self.messages, "-timeout", "80s", "-timeout_error", *args]
        self.child = Child([str(x) for x in argv], unique("sipp.out"), cwd=os.path.dirname(self.errors))
        self.kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM

    def ended_well(self, seconds=75):
        try:
            code = self.child.p.wait(seconds)
        except subprocess.TimeoutExpired:
            code = "none: it runs on"
        self.stop()
        if code != 0:
            lines = [line for line in read(self.errors).splitlines() if line.strip()]
            said = read(self.messages).rsplit("-----", 1)[-1].strip().splitlines()[1:4]
            raise Failed(f"sipp {self.scenario} ended with {code}: {' '.join(lines[:2])[:300]}; last message {said}")

    def stop(self):
        self.child.stop(2)
