"""The shop's image, localhost/shop:1: PostgreSQL, Python with its client, and the three programs of the shop."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.images import Config, Image, build_image, folder_layer

PROGRAMS = Path(__file__).with_name("programs")
PACKAGES = ("postgresql-17", "python3-psycopg2")
SLIMMING = (
    # Compilation of queries at run time: half of the image, and switched off where its library is missing.
    "rm -rf /usr/lib/*-linux-gnu/libLLVM* /usr/lib/*-linux-gnu/libz3* /usr/lib/postgresql/17/lib/llvmjit*",
    "rm -rf /usr/lib/postgresql/17/lib/bitcode",
    # The package makes a database of its own; the shop's lies in its volume.
    "rm -rf /var/lib/postgresql /etc/postgresql/17",
    # PostgreSQL wants its user to have a name.
    "echo shop:x:999:999:shop:/:/usr/sbin/nologin >> /etc/passwd; echo shop:x:999: >> /etc/group",
)


def build() -> Image:
    """Build the image, or find it in the cache."""
    programs = folder_layer(PROGRAMS, at="/shop")
    return build_image("shop:1", packages=PACKAGES, commands=SLIMMING, layers=[programs], config=Config(user="999:999"))
