"""CoreDNS, as a process on the node behind the usual Service address."""

from __future__ import annotations

from tests.cluster.credentials import Credentials
from tests.cluster.network import DOMAIN, NODE_ADDRESS
from tests.cluster.places import Places
from tests.cluster.processes import Processes
from tests.cluster.programs import Programs


def start(processes: Processes, programs: Programs, credentials: Credentials, places: Places) -> None:
    """Start CoreDNS; it answers as soon as it has listed the services.

    Names outside the cluster do not exist, which it says at once: there is no uplink, and a query sent into
    the void would make each lookup of a missing name wait for seconds.
    """
    corefile = places.state / "Corefile"
    corefile.write_text(f"""\
{DOMAIN}:53 in-addr.arpa:53 {{
    bind {NODE_ADDRESS}
    errors
    kubernetes {DOMAIN} in-addr.arpa {{
        kubeconfig {credentials.kubeconfig("admin")}
        pods insecure
        ttl 5
    }}
}}
.:53 {{
    bind {NODE_ADDRESS}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
""")
    processes.start("coredns", [programs["coredns"], "-conf", corefile])
