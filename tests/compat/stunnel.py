# SPDX-License-Identifier: MIT
"""stunnel4, a thread for each TLS connection, in front of a native echo server."""

import harness
from harness import Case, Fail, say_status

CONFIG = """foreground = yes
pid =
debug = notice
socket = l:SO_REUSEADDR=1
[echo]
accept = 127.0.0.1:{front}
connect = 127.0.0.1:{back}
cert = {cert}
key = {key}
"""


def serve(r):
    stunnel = harness.need("stunnel4")
    cert, key = r.path("cert.pem"), r.path("key.pem")
    r.run(harness.need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
          "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost", native=True)
    front, back = harness.free_port(), harness.free_port()
    echo = r.start(harness.PYTHON, harness.TESTS + "/compat/client.py", "echo-server", "--port", back, native=True,
                   label="echo-server")
    echo.wait_port(back)
    p = r.start(stunnel, r.write("stunnel.conf", CONFIG.format(front=front, back=back, cert=cert, key=key)))
    p.wait_port(front)
    r.client("echo", "--port", front, "--connections", "20", "--tls", cert)
    before = {p.pid: harness.descriptors(p.pid)}
    answer = r.client("echo", "--port", front, "--connections", "300", "--messages", "5", "--size", "40000",
                      "--tls", cert)
    r.same_descriptors(before, [p.pid], "stunnel")
    rc = p.stop()
    if rc < 0 and not r.variant.native:
        raise Fail(say_status(rc))
    return f"{answer}SIGTERM: {say_status(rc)}"


def cases(options):
    return [Case("stunnel", serve, timeout=90, alone=True)]
