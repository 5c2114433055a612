"""An HTTP proxy that does nothing but CONNECT (RFC 9110 section 9.3.6), for USER:PASSWORD alone and to port 443 alone.

    connect_proxy.py IP PORT USER:PASSWORD

One line a tunnel on standard output: the address that was asked for.
"""
import asyncio, base64, sys


async def carry(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def serve(reader, writer):
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        host, port = target.rsplit(":", 1)
        said = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
        if said.get("Proxy-Authorization") != PROOF:
            writer.write(b'HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm="lab"\r\nContent-Length: 0\r\n\r\n')
        elif method != "CONNECT" or port != "443":
            writer.write(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
        else:
            try:
                there = await asyncio.wait_for(asyncio.open_connection(host.strip("[]"), int(port)), 5)
            except (OSError, asyncio.TimeoutError):
                writer.write(b"HTTP/1.1 502 Nobody\r\nContent-Length: 0\r\n\r\n")
            else:
                print(target, flush=True)
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                await asyncio.gather(carry(reader, there[1]), carry(there[0], writer))
    except (OSError, ValueError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, sys.argv[1], int(sys.argv[2]))
    await server.serve_forever()

PROOF = "Basic " + base64.b64encode(sys.argv[3].encode()).decode()
asyncio.run(main())
