"""An end of the Python ICE agent aioice for aioice.rs: prints its credentials and candidates, reads the other end's, connects, and
says its words until it has heard the other end's. Arguments: controlling or controlled, what it says, what it hears.
"""
import asyncio, sys
import aioice, aioice.ice

# It would leave loopback out.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]


async def main():
    role, said, heard = sys.argv[1:]
    end = aioice.Connection(ice_controlling=role == "controlling", components=1, use_ipv6=False)
    await end.gather_candidates()
    lines = [f"ice-ufrag:{end.local_username}", f"ice-pwd:{end.local_password}"]
    lines += [f"candidate:{c.to_sdp()}" for c in end.local_candidates]
    print("\n".join(lines) + "\n", flush=True)
    for line in iter(sys.stdin.readline, "\n"):
        name, value = line.strip().split(":", 1)
        match name:
            case "ice-ufrag": end.remote_username = value
            case "ice-pwd": end.remote_password = value
            case "candidate": await end.add_remote_candidate(aioice.Candidate.from_sdp(value))
    await end.add_remote_candidate(None)
    await end.connect()
    while True:
        await end.send(said.encode("latin1"))
        try:
            if await asyncio.wait_for(end.recv(), 0.05) == heard.encode("latin1"):
                break
        except asyncio.TimeoutError:
            pass
    # Some more, should the last ones have been early; checks are answered meanwhile.
    for _ in range(40):
        await end.send(said.encode("latin1"))
        await asyncio.sleep(0.05)
    print("heard", flush=True)
    await end.close()


asyncio.run(main())
