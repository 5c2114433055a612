"""The cells of the interop table: what is done with whom, and what has to be seen for it to be ok."""
import os, re, socket
from foreign import Baresip, JsSip, Linphone, Sipp
from ours import (INTEROP, PASSWORD, Cannot, Child, Failed, Ring, at, completed, listens, plain_phone, ports,
                  scratch, see, unique, write)


class Setup:
    """A ring and the phone that registers there; made at the first use, thrown away after a failure."""

    def __init__(self, kind, transport, family):
        self.kind, self.transport, self.family = kind, transport, family
        self.ring = self.phone = self.run = None

    def ready(self):
        if not self.ring:
            self.ring = Ring(self.family)
        if self.kind and not self.phone:
            self.phone = self.kind(self.ring, self.transport)
            self.phone.registers()
            see("alice has the registration", lambda: self.ring.alice.registered("desk"))
            self.ring.bob.finds("desk")
        if self.phone:
            self.phone.settle()
            self.phone.mark()
        return self.ring, self.phone

    def drop(self):
        for one in (self.phone, self.ring):
            if one:
                one.stop()
        self.ring = self.phone = None


def register(s):
    ring, phone = s.ready()
    if not ring.alice.registered("desk"):
        raise Failed("alice has no contact of the phone")


def wrong_password(s):
    ring = Ring(s.family)  # of its own: who guesses is listened to more rarely
    try:
        phone = s.kind(ring, s.transport, password="wrong")
        try:
            answer = phone.refused()
            if not answer or answer[:3] not in ("401", "403"):
                raise Failed(f"the wrong password was answered {answer}")
            if ring.alice.registered("desk"):
                raise Failed("it is registered all the same")
        finally:
            phone.stop()
    finally:
        ring.stop()


def dialled(s):
    """The phone calls bob, and they talk."""
    ring, phone = s.ready()
    phone.dial(ring.aor("bob"))
    phone.talks()
    ring.bob.talks_with("desk")
    return ring, phone


def over(ring, phone):
    phone.hangup()
    ring.idle()


def call(s):
    ring, phone = dialled(s)
    see("the call lasts", lambda: ring.bob.talks_with("desk")["talk_s"] > 1.5)
    phone.mark()
    over(ring, phone)
    phone.ended()
    last = ring.bob.do("calls")["ended"][0]
    completed(last, phone.media)


def called(s):
    ring, phone = s.ready()
    report = ring.bob.call("desk", "--play", "tone", "--duration", "2")
    if hasattr(phone, "rings"):
        phone.rings()
    phone.talks()
    completed(report(), phone.media)
    phone.ended()
    ring.idle()


def hold(s):
    ring, phone = dialled(s)
    phone.hold()
    ring.bob.calls("the phone holds", lambda c: c and c[0]["held_by"] == "there")
    phone.resume()
    ring.bob.calls("the phone takes it back", lambda c: c and c[0]["state"] == "answered" and not c[0]["held_by"])
    over(ring, phone)


def held(s):
    ring, phone = dialled(s)
    phone.mark()
    ring.bob.do("hold")
    phone.is_held()
    ring.bob.do("resume")
    phone.is_resumed()
    over(ring, phone)


def blind_transfer(s):
    ring, phone = dialled(s)
    phone.transfer(ring.aor("carol"))
    ring.bob.talks_with("carol")
    ring.carol.talks_with("bob")
    ring.bob.do("hangup")
    ring.idle()


def transferred(s):
    ring, phone = dialled(s)
    ring.bob.do("transfer", "carol")
    ring.carol.talks_with("desk")
    ring.bob.idle()
    ring.carol.do("hangup")
    ring.idle()


def attended_transfer(s):
    ring, phone = s.ready()
    phone.attended(ring.aor("bob"), ring.aor("carol"))
    ring.bob.talks_with("carol")
    ring.carol.talks_with("bob")
    ring.bob.do("hangup")
    ring.idle()


def attended_transferred(s):
    ring, phone = s.ready()
    ring.bob.call("desk", "--play", "tone")
    if hasattr(phone, "rings"):
        phone.rings()
    phone.talks()
    first = ring.bob.talks_with("desk")["call"]
    ring.bob.do("hold")
    ring.bob.call("carol", "--play", "tone")
    second = ring.bob.calls("both calls", lambda c: len(c) == 2 and any("carol" in x["with"] and x["state"] == "answered" for x in c))
    second = next(x["call"] for x in second if "carol" in x["with"])
    try:
        ring.bob.do("transfer", str(first), "--attended", str(second))
    except Failed as e:
        if s.kind is Baresip and "Malformed Request-URI" in str(e):
            s.drop()
            raise Cannot("baresip 1.0 leaves the Replaces of Refer-To in its Request-URI, which is answered 400")
        raise
    ring.carol.talks_with("desk")
    ring.bob.idle()
    ring.carol.do("hangup")
    ring.idle()


def has_message(peer, text):
    see(f"{peer.name} has {text!r}", lambda: any(text in m.get("text", "") for m in peer.do("messages")["messages"]))


def message(s):
    ring, phone = s.ready()
    phone.message(ring.aor("bob"), "from the desk")
    has_message(ring.bob, "from the desk")


def messaged(s):
    ring, phone = s.ready()
    answer = ring.bob.do("message", "desk", "to the desk")
    phone.has_message("to the desk")
    if answer.get("state") != "delivered":
        raise Failed(f"the phone has it, and bob is told {answer.get('state')}")


def watching(module, event):
    def cell(s):
        if s.kind is not Baresip:
            return s.ready()[1].subscribed(event)
        # a phone of its own: baresip's mwi module asks without a pause while its peer is away
        ring, _ = s.ready()
        phone = Baresip(ring, s.transport, "hall", watches=module)
        try:
            phone.subscribed(event)
        finally:
            phone.stop()
    return cell


presence, mwi = watching("presence", "presence"), watching("mwi", "message-summary")


def linphone_prack(s):
    """Another linphonec, that wants its ringing acknowledged; as a caller it offers 100rel and leaves it to the program."""
    ring = s.ready()[0]
    phone = Linphone(ring, s.transport, "hall", sip="100rel_support_level=2", answers=False)
    try:
        phone.registers()
        ring.bob.finds("hall")
        phone.mark()
        report = ring.bob.call("hall", "--play", "tone", "--duration", "1")
        see("linphone's reliable ringing", lambda: re.search(r"SIP/2\.0 18[03][^\n]*\n(?:[^\n]+\n)*?RSeq:", phone.log()), 10)
        phone.logged("PRACK comes and is answered", r"PRACK sip:hall.*?\nSIP/2\.0 200[^\n]*\n(?:[^\n]+\n)*?CSeq: \d+ PRACK")
        phone.tell("answer")
        completed(report())
    finally:
        phone.stop()
    ring.idle()


def linphone_timers(s):
    ring = s.ready()[0]
    phone = Linphone(ring, s.transport, "hall", sip="session_expires_enabled=1\nsession_expires_value=90\nsession_expires_min_value=90")
    try:
        phone.registers()
        phone.mark()
        phone.dial(ring.aor("bob"))
        phone.talks()
        phone.mark()
        expires = r"[^\n]*\n(?:[^\n]+\n)*?Session-Expires: ?90"
        phone.logged("the session is refreshed", "(UPDATE|INVITE) sip:" + expires, 60)
        phone.logged("the refresh is answered", rf"(UPDATE|INVITE) sip:.*?\nSIP/2\.0 200{expires}", 5)
        ring.bob.talks_with("hall")
        phone.hangup()
        ring.idle()
    finally:
        phone.stop()


def cannot(why):
    def cell(_):
        raise Cannot(why)
    return cell


# sipp ------------------------------------------------------------------------------------------------------------------------------

def sipp_as(s, scenario, user, *args):
    ring = s.ready()[0]
    key = ["-key", "domain", ring.overlay, "-s", user, "-au", "hall", "-ap", PASSWORD]
    return ring, Sipp(scenario, s.family, s.transport, *key, *args, ring.alice.sip)


def sipp_register(s):
    ring, sipp = sipp_as(s, "register", "hall")
    sipp.ended_well(20)
    see("alice has the registration", lambda: any(str(sipp.port) in c for c in ring.alice.registered("hall")))
    ring.bob.finds("hall")


def sipp_wrong_password(s):
    ring = Ring(s.family)
    try:
        sipp = Sipp("register", s.family, s.transport, "-key", "domain", ring.overlay, "-s", "hall", "-au", "hall", "-ap", "wrong",
                    ring.alice.sip)
        try:
            sipp.ended_well(20)
        except Failed as e:
            if not any(f"SIP/2.0 {code}" in str(e) for code in (401, 403)):
                raise
        else:
            raise Failed("a wrong password was taken")
        if ring.alice.registered("hall"):
            raise Failed("it is registered all the same")
    finally:
        ring.stop()


def sipp_message(s):
    ring, sipp = sipp_as(s, "message", "hall", "-key", "to", "bob", "-key", "text", "from sipp")
    sipp.ended_well(20)
    has_message(ring.bob, "from sipp")


def sipp_call(s):
    """sipp's own uac calls bob at his own address, without a registration."""
    ring = s.ready()[0]
    sipp = Sipp("uac", s.family, s.transport, "-s", "bob", "-d", 1000, ring.bob.sip)
    ring.bob.calls("sipp's call is answered", lambda c: c and c[0]["state"] == "answered")
    sipp.ended_well(30)
    ring.idle()


def waiting(s, scenario):
    sipp = Sipp(scenario, s.family, s.transport)
    see("sipp listens", lambda: listens(s.family, sipp.port, sipp.kind), 5)
    return sipp, f"sip:joe@{at(s.family, sipp.port)};transport={s.transport}"


def sipp_called(s, scenario="uas", *args):
    ring = s.ready()[0]
    sipp, uri = waiting(s, scenario)
    report = ring.alice.call(uri, "--duration", "1")()
    completed(report, False)
    sipp.ended_well(20)


def sipp_held(s):
    ring = s.ready()[0]
    sipp, uri = waiting(s, "held")
    report = ring.alice.call(uri)
    ring.alice.calls("they talk", lambda c: c and c[0]["state"] == "answered")
    ring.alice.do("hold")
    ring.alice.do("resume")
    ring.alice.do("transfer", f"sip:carol@{at(s.family, 9)}")
    completed(report(), False)
    sipp.ended_well(20)


def sipp_phone(s):
    """A strict caller: 422, PRACK, INFO, UPDATE and the refresh of the session, one after the other; one run for several cells."""
    if s.run is None:
        ring = s.ready()[0]
        try:
            sipp = Sipp("phone", s.family, s.transport, "-s", "alice", ring.alice.sip)
            ring.alice.calls("it rings", lambda c: c and c[0]["state"] == "incoming")
            ring.alice.do("answer")
            ring.alice.calls("held by sipp's UPDATE", lambda c: c and c[0]["held_by"] == "there")
            sipp.ended_well()
            ring.idle()
            s.run = "ok"
        except Failed as e:
            s.run = str(e)
            raise
    elif s.run != "ok":
        raise Failed("the same run: " + s.run)


# Kamailio --------------------------------------------------------------------------------------------------------------------------

class Kamailio:
    """A provider by `scenarios/provider.cfg`: registrar, digest, proxy; UDP and TCP."""

    def __init__(self, family):
        self.port, here = ports(1), unique("kamailio")
        os.makedirs(here)
        self.at = at(family, self.port)
        argv = ["kamailio", "-f", os.path.join(INTEROP, "scenarios", "provider.cfg"), "-DD", "-E", "-n", "1", "-m", "32", "-M", "4",
                "-A", f"LISTENUDP=udp:{self.at}", "-A", f"LISTENTCP=tcp:{self.at}", "-Y", here, "-w", here, "-P", here + "/pid"]
        self.child = Child(argv, here + ".log")
        see("kamailio listens", lambda: listens(family, self.port) and listens(family, self.port, socket.SOCK_DGRAM), 15)

    def stop(self):
        self.child.stop()


class Phones(Setup):
    """Three plain phones of ours at a Kamailio."""

    def ready(self):
        if not self.ring:
            self.ring, self.phone = Kamailio(self.family), []
            for user, args in (("alice", []), ("bob", ["--auto-answer"]), ("carol", ["--auto-answer"])):
                one = plain_phone(user, PASSWORD, self.ring.at, self.transport, self.family, *args)
                self.phone.append(one)
                see(f"{user} is registered at Kamailio", lambda: registered_there(one))
        return self.ring, self.phone

    def uri(self, user):
        return f"sip:{user}@{self.ring.at}"

    def drop(self):
        for one in [*(self.phone or []), self.ring]:
            if one:
                one.stop()
        self.ring = self.phone = None


def registered_there(phone):
    status = phone.status()
    if not status.get("registrations"):
        raise Failed(f"{status.get('said') or status.get('warnings')}; {phone.child.tail()[-200:]}")
    return True


def kamailio_register(s):
    s.ready()


def kamailio_wrong_password(s):
    server, _ = s.ready()
    phone = plain_phone("dave", "wrong", server.at, s.transport, s.family)
    try:
        see("the refusal is told", lambda: "not registered: 40" in phone.child.tail())
        if phone.status().get("registrations"):
            raise Failed("it is registered all the same")
    finally:
        phone.stop()


def kamailio_call(s):
    _, (alice, bob, _) = s.ready()
    completed(alice.call(s.uri("bob"), "--play", "tone", "--duration", "2")())
    bob.idle()


def kamailio_hold(s):
    _, (alice, bob, _) = s.ready()
    report = alice.call(s.uri("bob"), "--play", "tone")
    alice.talks_with("bob")
    for one, other in ((alice, bob), (bob, alice)):
        one.do("hold")
        other.calls("held", lambda c: c and c[0]["held_by"] == "there")
        one.do("resume")
        other.calls("taken back", lambda c: c and not c[0]["held_by"])
    alice.do("hangup")
    completed(report())
    bob.idle()


def kamailio_transfer(s):
    _, (alice, bob, carol) = s.ready()
    alice.call(s.uri("bob"), "--play", "tone")
    alice.talks_with("bob")
    alice.do("transfer", s.uri("carol"))
    carol.talks_with("bob")
    alice.idle()
    bob.talks_with("carol")
    bob.do("hangup")
    carol.idle()


class Accounts(Setup):
    """A ring whose members have accounts at a Kamailio."""

    def config(self, user, password):
        secret = write(unique("secret"), password + "\n")
        return write(unique(user + ".toml"), f'[[account]]\nname = "work"\naor = "sip:{user}@provider.test"\nregistrar = "{self.phone.at}"\n'
                     f'transport = "{self.transport}"\npassword_file = "{secret}"\nexpires = 30\n')

    def ready(self, password=PASSWORD):
        if not self.ring:
            self.phone = Kamailio(self.family)
            for user in ("alice", "bob"):
                os.replace(self.config(user, password), os.path.join(scratch, user + ".toml"))
            try:
                self.ring = Ring(self.family)
            finally:
                for user in ("alice", "bob"):
                    os.remove(os.path.join(scratch, user + ".toml"))
        return self.ring, self.phone


def account(peer, state, seconds=30):
    def ask():
        one = (peer.do("accounts").get("accounts") or [{}])[0]
        if one.get("state") == state:
            return one
        raise Failed(f"{one.get('state')}: {one.get('error')}")
    return see(f"the account of {peer.name} is {state}", ask, seconds)


def account_register(s):
    ring, _ = s.ready()
    for peer in (ring.alice, ring.bob):
        account(peer, "registered")


def account_wrong_password(s):
    own = Accounts(None, s.transport, s.family)
    try:
        ring, _ = own.ready("wrong")
        account(ring.alice, "failed")
    finally:
        own.drop()


def account_call(s):
    ring, _ = s.ready()
    account_register(s)
    report = ring.alice.call("sip:bob@provider.test", "--account", "work", "--play", "tone", "--duration", "2")
    seen = ring.bob.talks_with("alice")
    if seen.get("account") != "work" or seen["with"] != "sip:alice@provider.test":
        raise Failed(f"bob's call is not by his account: {seen}")
    completed(report())
    ring.idle()


def dead_proxy(s):
    """Kamailio stops with a call of the overlay going on: the call goes on, a new one is made, and the
    account says that it failed."""
    ring, server = s.ready()
    account_register(s)
    report = ring.alice.call("carol", "--play", "tone")
    before = ring.carol.talks_with("alice")["talk_s"]
    server.stop()
    see("the call goes on", lambda: ring.carol.talks_with("alice")["talk_s"] > before + 3)
    completed(ring.bob.call("carol", "--play", "tone", "--duration", "1")())
    ring.alice.do("hangup")
    completed(report())
    ring.idle()
    account(ring.bob, "failed", 80)  # over UDP: the next refresh, and then 32 s without an answer
    s.drop()


PHONE = {"register": register, "wrong-password": wrong_password, "call": call, "called": called, "hold": hold, "held": held,
         "blind-transfer": blind_transfer, "transferred": transferred, "attended-transfer": attended_transfer,
         "attended-transferred": attended_transferred, "message": message, "messaged": messaged, "presence": presence, "mwi": mwi,
         "prack": cannot("baresip 1.0 has no 100rel"), "timers": cannot("baresip 1.0 has no session timers")}
LINPHONE = {**PHONE, "prack": linphone_prack, "timers": linphone_timers,
            "mwi": cannot("linphonec 5.1 subscribes to no message-summary")}
JSSIP = {**PHONE, "presence": cannot("phone.js does not subscribe"), "mwi": cannot("phone.js does not subscribe"),
         "prack": cannot("JsSIP has no 100rel"), "timers": cannot("phone.js has them switched off")}
SIPP = {"register": sipp_register, "wrong-password": sipp_wrong_password, "call": sipp_call, "called": sipp_called, "held": sipp_held,
        "message": sipp_message, "prack": sipp_phone, "prack-called": lambda s: sipp_called(s, "callee"), "timers": sipp_phone,
        "update": sipp_phone}
KAMAILIO = {"register": kamailio_register, "wrong-password": kamailio_wrong_password, "call": kamailio_call, "hold": kamailio_hold,
            "blind-transfer": kamailio_transfer}
ACCOUNT = {"account-register": account_register, "account-wrong-password": account_wrong_password, "account-call": account_call,
           "dead-proxy": dead_proxy}
# peer: transports, then setups with their cells
PEERS = {
    "baresip": (["udp", "tcp", "tls"], [(Setup, Baresip, PHONE)]),
    "linphone": (["udp", "tcp", "tls"], [(Setup, Linphone, LINPHONE)]),
    "sipp": (["udp", "tcp", "tls"], [(Setup, None, SIPP)]),
    "kamailio": (["udp", "tcp"], [(Phones, None, KAMAILIO), (Accounts, None, ACCOUNT)]),
    "jssip": (["ws", "wss"], [(Setup, JsSip, JSSIP)]),
}
# Why a peer has no cells over its other transports; the first cell says it.
NOT_SERVED = {
    "baresip": "baresip 1.0 has no SIP over WebSockets",
    "linphone": "linphonec has no SIP over WebSockets",
    "sipp": "SIPp has no WebSockets",
    "kamailio": "phones and accounts of ours speak no WebSockets to a registrar",
    ("kamailio", "tls"): "plain phones of ours speak UDP and TCP alone, and the provider of scenarios/provider.cfg has no certificate",
    "jssip": "JsSIP speaks WebSockets alone",
}
