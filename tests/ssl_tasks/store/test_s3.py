"""The whole store on object storage: an S3 server on this machine stands in for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from ssl_tasks.errors import RequestError
from ssl_tasks.shards import Shards
from ssl_tasks.store import Store
from ssl_tasks.store.collect import collect


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    import boto3

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    client.create_bucket(Bucket="data")
    yield f"s3://data/store?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    server.stop()


def test_the_whole_chain_runs_on_s3_as_on_a_folder(
    bucket: str, tmp_path: Path, small: dict, chain, ray_session: None
) -> None:
    small["pretrain"] |= {"max_steps": 6, "checkpoint_every_steps": 2}
    there = chain(Store.open(bucket), small, until="report")
    here = chain(Store.open(str(tmp_path / "store")), small, until="report")
    for name, artifact in there.items():
        assert artifact.fingerprint == here[name].fingerprint
        assert artifact.manifest.data_checksum == here[name].manifest.data_checksum, name
    assert len(Shards.open(there["normalize"])) == 96
    again = chain(Store.open(bucket), small, until="report")
    assert {name: a.manifest.attempt for name, a in again.items()} == {n: a.manifest.attempt for n, a in there.items()}


def test_gc_cleans_s3(bucket: str, small: dict, chain) -> None:
    store = Store.open(bucket.replace("/store?", "/other?"))
    made = chain(store, small, until="clean")
    gone = collect(store, keep_runs=0)
    assert sorted(gone.artifacts) == sorted(artifact.fingerprint for artifact in made.values())
    assert gone.bytes_freed > 0
    assert store.list("objects") == []


def test_an_s3_place_with_something_else_is_refused(bucket: str) -> None:
    with pytest.raises(RequestError, match="something else"):
        Store.open(bucket.replace("/store?", "?"))


@pytest.mark.parametrize(("more", "parts"), [("", False), ("&allow_delayed_open=false", True)])
def test_a_small_file_goes_by_one_request_unless_the_user_says_otherwise(bucket: str, more: str, parts: bool) -> None:
    import boto3

    Store.open(bucket.replace("/store?", "/pieces?") + more).write_json("small.json", {})
    endpoint = "http://" + bucket.partition("endpoint_override=")[2].partition("&")[0]
    found = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").head_object(
        Bucket="data", Key="pieces/small.json"
    )
    assert ("-" in found["ETag"]) is parts  # so ends that of an upload in parts
