"""Count visits over HTTP: GET / answers with the number of the visit; SIGTERM ends the program in good order.

Standard library only, Python 3.6 and later.
"""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

PORT = int(os.environ.get("PORT", "8000"))


class Visits(BaseHTTPRequestHandler):
    """Answer each GET with how many there have been."""

    count = 0

    def do_GET(self):
        """Count the visit and answer."""
        Visits.count += 1
        body = f"visit {Visits.count}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        """Log to standard output, where a container's log looks."""
        print(f"{self.client_address[0]} {format % args}", flush=True)


def stop(number, frame):
    """End on SIGTERM: process 1 of a container has no default action for it."""
    print(f"app: stopping after {Visits.count} visits", flush=True)
    sys.exit(0)


def main():
    """Serve until told to stop."""
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server = HTTPServer(("0.0.0.0", PORT), Visits)
    print("app: serving on port {} with Python {}.{}".format(PORT, *sys.version_info[:2]), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
