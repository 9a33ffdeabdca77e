"""What a mover's pod gets, and what the network lets it reach."""

from __future__ import annotations

import pytest

from backstay.api.meta import KeyReference, Meta, Reference
from backstay.api.storage import S3, BackupStorage, BackupStorageSpec, PasswordReference
from backstay.storage.mover_access import mover_access
from backstay.storage.network import build_network_policy


def storage(**s3: object) -> BackupStorage:
    return BackupStorage(
        Meta("main", "shop", uid="u"),
        BackupStorageSpec(S3("backups", **s3), PasswordReference("pw", "word")),  # type: ignore[arg-type]
    )


def test_secrets_come_as_files_with_the_names_that_a_mover_reads() -> None:
    access = mover_access(storage(credentials_secret_ref=Reference("s3"), ca_secret_ref=KeyReference("ca", "root.pem")))

    files = {
        f"{mount['mountPath']}/{item['path']}": (source["secret"]["name"], item["key"])
        for volume, mount in zip(access.volumes, access.volume_mounts, strict=True)
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    assert files == {
        "/etc/backstay/password/password": ("pw", "word"),
        "/etc/backstay/s3/AWS_ACCESS_KEY_ID": ("s3", "AWS_ACCESS_KEY_ID"),
        "/etc/backstay/s3/AWS_SECRET_ACCESS_KEY": ("s3", "AWS_SECRET_ACCESS_KEY"),
        "/etc/backstay/s3/AWS_SESSION_TOKEN": ("s3", "AWS_SESSION_TOKEN"),
        "/etc/backstay/ca/ca.crt": ("ca", "root.pem"),
    }
    assert access.env == ()


def test_a_session_token_may_be_absent() -> None:
    (_, s3) = mover_access(storage(credentials_secret_ref=Reference("s3"))).volumes
    required, optional = s3["projected"]["sources"]

    assert "optional" not in required["secret"]
    assert optional["secret"]["optional"] is True


def test_the_order_tells_where_the_repository_lies() -> None:
    access = mover_access(storage(prefix="prod/shop", endpoint="https://s3:9000", region="x", force_path_style=True))

    assert access.repository == {
        "bucket": "backups",
        "prefix": "prod/shop",
        "endpoint": "https://s3:9000",
        "region": "x",
        "forcePathStyle": True,
    }


@pytest.mark.parametrize(
    ("endpoint", "port", "namespaces"),
    [
        ("", 443, []),
        ("https://s3.example.com", 443, []),
        ("http://s3.example.com", 80, []),
        ("https://s3.example.com:9000", 9000, []),
        ("http://s3.object-store.svc.cluster.local:8333", 8333, ["object-store"]),
        ("http://s3.object-store.svc", 80, ["object-store"]),
        ("https://[2001:db8::1]:9000", 9000, []),
    ],
)
def test_movers_reach_names_and_the_s3_server_alone(endpoint: str, port: int, namespaces: list[str]) -> None:
    policy = build_network_policy(storage(endpoint=endpoint))

    spec = policy["spec"]
    dns, s3, *inside = spec["egress"]
    assert {(p["protocol"], p["port"]) for p in dns["ports"]} >= {("UDP", 53), ("TCP", 53)}
    assert s3 == {"ports": [{"protocol": "TCP", "port": port}]}
    assert [
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for rule in inside
        for peer in rule["to"]
    ] == namespaces
    assert "ingress" not in spec
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["podSelector"] == {"matchLabels": {"backstay.dev/storage": "main"}}


def test_the_network_policy_goes_with_its_storage_and_is_not_captured() -> None:
    metadata = build_network_policy(storage())["metadata"]

    assert metadata["name"] == "backstay-mover-main"
    assert metadata["ownerReferences"][0]["uid"] == "u"
    assert metadata["labels"]["backstay.dev/component"] == "network"
