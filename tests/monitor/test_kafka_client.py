"""Kafka's clients on a real broker: they come to be without one, log in, and say which secret is refused.

One broker with a listener of each kind serves all tests: TLS, with client certificates too, logins with TLS or without,
and two whose certificate is expired or another machine's.
"""

import base64
import json
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import served
from daemon_process import wait_for
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
    UserScramCredentialUpsertion,
)
from kafka.structs import OffsetAndMetadata
from servers.certificates import Authority
from servers.kafka import KafkaServer
from structlog.testing import capture_logs

from monitor.config.output_sections import Kafka, KafkaTopics
from monitor.config.sections import Config
from monitor.log.kafka_client import admin, client_settings, trouble_of, unavailable
from monitor.log.kafka_topics import check_topics, create_topics
from monitor.log.protocol import LogUnavailable

PASSWORD = "wonderland"
MECHANISMS = ("plain", "scram-sha-256", "scram-sha-512")
LISTENERS = {
    "TLS": "SSL",
    "MUTUAL": "SSL",
    "EXPIRED": "SSL",
    "ELSEWHERE": "SSL",
    "LOGIN": "SASL_PLAINTEXT",
    "LOGINTLS": "SASL_SSL",
}
LOGIN_MODULES = {
    "plain": f'plain.PlainLoginModule required user_alice="{PASSWORD}"',
    "scram-sha-256": "scram.ScramLoginModule required",
    "scram-sha-512": "scram.ScramLoginModule required",
    "oauthbearer": 'oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker"',
}


class Secured(KafkaServer):
    """The broker, the authority that vouches for it and for clients, and another that vouches for nobody here."""

    def __init__(self, folder: Path) -> None:
        self.authority, self.stranger = Authority(folder), Authority(folder, "stranger")
        properties = {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS;User:alice;User:CN=client",
            "listener.name.mutual.ssl.client.auth": "required",
            "auto.create.topics.enable": "true",
        }
        for listener in ("tls", "mutual", "expired", "elsewhere", "logintls"):
            extensions = "elsewhere" if listener == "elsewhere" else "server"
            properties |= {
                f"listener.name.{listener}.ssl.keystore.type": "PEM",
                f"listener.name.{listener}.ssl.keystore.location": str(
                    self.authority.both(listener, extensions, expired=listener == "expired")
                ),
                f"listener.name.{listener}.ssl.truststore.type": "PEM",
                f"listener.name.{listener}.ssl.truststore.location": str(self.authority.ca_file),
            }
        for listener in ("login", "logintls"):
            properties[f"listener.name.{listener}.sasl.enabled.mechanisms"] = ",".join(LOGIN_MODULES).upper()
            for mechanism, module in LOGIN_MODULES.items():
                jaas = f"org.apache.kafka.common.security.{module};"
                properties[f"listener.name.{listener}.{mechanism}.sasl.jaas.config"] = jaas
        scram = [
            f"{mechanism}=[name={user},password={PASSWORD}]"
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for user in ("alice", "carol")
        ]
        super().__init__(folder, properties=properties, listeners=LISTENERS, scram=scram)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    yield from served(Secured, tmp_path_factory.mktemp("secured-kafka"))


@pytest.fixture
def topic(secured: Secured) -> str:
    return secured.create_topic(uuid.uuid4().hex)


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    """The right password, with the end of line that an editor leaves."""
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    return file


def config(server: KafkaServer, listener: str, **keys: Any) -> Kafka:
    return Kafka(bootstrap_servers=(server.bootstrap_of(listener),), **keys)


def through(kafka: Kafka, topic: str) -> list[tuple[bytes, bytes, list[tuple[str, bytes]]]]:
    """A record written and, in a group, read back with all that we use of a record."""
    settings = client_settings(kafka)
    producer = KafkaProducer(**settings)
    consumer = KafkaConsumer(
        **settings, group_id=f"wattribute-{topic}", auto_offset_reset="earliest", enable_auto_commit=False
    )
    try:
        producer.send(topic, b"body", key=b"gpu-01", headers=[("schema", b"usage.v1")]).get(30)
        consumer.subscribe([topic])
        records = wait_for("the record", lambda: [r for part in consumer.poll(1000).values() for r in part])
        return [(record.key, record.value, record.headers) for record in records]
    finally:
        producer.close(timeout=5)
        consumer.close(timeout_ms=5000)


READ_BACK = [(b"gpu-01", b"body", [("schema", b"usage.v1")])]


class Attempt:
    """One producer that keeps trying, and what it says."""

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self._settings, self._topic, self._server = client_settings(kafka), topic, kafka.bootstrap_servers[0]
        self.producer = KafkaProducer(**self._settings, max_block_ms=1500)

    def failure(self) -> str:
        """What is said of a record that cannot be written, once a connection has been tried."""
        with pytest.raises(kafka_errors.KafkaTimeoutError) as failed:
            self.producer.send(self._topic, b"body")
        wait_for("a reason", lambda: trouble_of(self._settings))
        said = str(unavailable(self._settings, "cannot write", failed.value))
        prefix = f"Kafka at {self._server}: cannot write: "
        assert said.startswith(prefix)
        return said.removeprefix(prefix)

    def success(self) -> None:
        """A record is acknowledged, without anything made anew; then no trouble is left."""
        wait_for("an acknowledgement", self.until_an_answer)
        assert trouble_of(self._settings) is None

    def until_an_answer(self) -> bool:
        """Whether a record is acknowledged; the broker's error, if it answers with one."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                self.producer.send(self._topic, b"body").get(10)
            except kafka_errors.KafkaTimeoutError:
                continue
            return True
        return False


@contextmanager
def writing(kafka: Kafka, topic: str) -> Iterator[Attempt]:
    attempt = Attempt(kafka, topic)
    try:
        yield attempt
    finally:
        attempt.producer.close(timeout=1)


def test_clients_come_to_be_while_no_broker_is_there(secured: Secured, tmp_path: Path) -> None:
    """Made at once with nobody listening; they say so, and once the broker is up they write, read, commit and ask."""
    server = KafkaServer(tmp_path / "late")
    kafka = Kafka(bootstrap_servers=(server.bootstrap,))
    settings = client_settings(kafka)
    began = time.monotonic()
    producer = KafkaProducer(**settings, max_block_ms=60_000)
    consumer = KafkaConsumer(**settings, group_id="g", auto_offset_reset="earliest", enable_auto_commit=False)
    consumer.subscribe(["late"])
    assert consumer.poll(200) == {}
    assert time.monotonic() - began < 10
    reason = wait_for("a reason", lambda: trouble_of(settings))
    assert reason.startswith(f"{server.bootstrap}: KafkaConnectionError: 111 ECONNREFUSED; check bootstrap_servers")
    server.start()
    try:
        server.create_topic("late", 2)
        partition = TopicPartition("late", 1)
        sent = producer.send("late", b"body", partition=1, timestamp_ms=1_700_000_000_000).get(30)
        assert (sent.partition, sent.offset) == (1, 0)
        assert trouble_of(settings) is None
        (record,) = wait_for("the record", lambda: consumer.poll(1000).get(partition))
        assert (record.value, record.timestamp) == (b"body", 1_700_000_000_000)
        consumer.commit({partition: OffsetAndMetadata(1, "watermark=1", -1)})
        assert consumer.committed(partition, metadata=True) == OffsetAndMetadata(1, "watermark=1", -1)
        assert consumer.highwater(partition) - consumer.position(partition) == 0
        assert consumer.offsets_for_times({partition: 1_700_000_000_000})[partition].offset == 0
        with admin(kafka) as client:
            assert client.list_group_offsets("g")["g"][partition].metadata == "watermark=1"
    finally:
        producer.close(timeout=5)
        consumer.close(timeout_ms=5000)
        server.stop()


def test_a_topic_is_never_made_by_the_way(secured: Secured) -> None:
    """A broker that makes topics when asked for them is not asked to: ours need settings of their own."""
    producer = KafkaProducer(**client_settings(config(secured, "PLAINTEXT")), max_block_ms=1500)
    with pytest.raises(kafka_errors.KafkaTimeoutError):
        producer.send("never-made", b"body")
    producer.close(timeout=1)
    with admin(config(secured, "PLAINTEXT")) as client:
        assert "never-made" not in client.list_topics()


def test_tls_and_client_certificates(secured: Secured, topic: str) -> None:
    """A record goes there and back over TLS, also where the broker asks for a certificate."""
    ca_file = secured.authority.ca_file
    assert through(config(secured, "TLS", security="tls", ca_file=ca_file), topic) == READ_BACK
    certificate, key = secured.authority.issue("client", "client")
    mutual = config(secured, "MUTUAL", security="tls", ca_file=ca_file, certificate_file=certificate, key_file=key)
    assert through(mutual, secured.create_topic(uuid.uuid4().hex)) == READ_BACK


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_login_by_password(secured: Secured, topic: str, password_file: Path, mechanism: str) -> None:
    """PLAIN and SCRAM, over TLS."""
    login: dict[str, Any] = {"sasl_mechanism": mechanism, "user": "alice", "password_file": password_file}
    ca_file = secured.authority.ca_file
    assert through(config(secured, "LOGINTLS", security="sasl_tls", ca_file=ca_file, **login), topic) == READ_BACK


def token(expires_in_seconds: float) -> str:
    def part(claims: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")

    now = time.time()
    claims = {"sub": "alice", "iat": now - 1000, "exp": now + expires_in_seconds}
    return f"{part({'alg': 'none'})}.{part(claims)}."


def test_login_by_a_token_that_another_process_renews(secured: Secured, topic: str, tmp_path: Path) -> None:
    """An expired token is refused and said; the renewed one, in the same file, is taken by the same client."""
    file = tmp_path / "token"
    file.write_text(token(-100) + "\n")
    kafka = config(secured, "LOGIN", security="sasl_plaintext", sasl_mechanism="oauthbearer", password_file=file)
    with writing(kafka, topic) as attempt:
        assert f"refuses this client with what stands in {file}: correct it" in attempt.failure()
        file.write_text(token(600) + "\n")
        attempt.success()


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_wrong_password_names_user_and_file_and_is_tried_until_it_is_right(
    secured: Secured, topic: str, password_file: Path, mechanism: str
) -> None:
    """The same producer goes on once the file is rewritten; the log has a line for the trouble and one for its end."""
    password_file.write_text("looking-glass\n")
    kafka = config(
        secured,
        "LOGIN",
        security="sasl_plaintext",
        sasl_mechanism=mechanism,
        user="alice",
        password_file=password_file,
    )
    with capture_logs() as lines, writing(kafka, topic) as attempt:
        assert f"refuses user 'alice' with what stands in {password_file}: correct it" in attempt.failure()
        password_file.write_text(PASSWORD)
        attempt.success()
    assert {line["event"] for line in lines} == {"kafka cannot be reached", "kafka is reached again"}
    assert len(lines) == 2


def test_an_unknown_user_is_named_and_let_in_once_the_broker_knows_it(
    secured: Secured, topic: str, password_file: Path
) -> None:
    """As a wrong password: the broker does not tell them apart. The user is made, and the client goes on."""
    user = uuid.uuid4().hex
    kafka = config(
        secured,
        "LOGIN",
        security="sasl_plaintext",
        sasl_mechanism="scram-sha-512",
        user=user,
        password_file=password_file,
    )
    with writing(kafka, topic) as attempt:
        assert f"refuses user '{user}' with what stands in {password_file}" in attempt.failure()
        with admin(config(secured, "PLAINTEXT")) as client:
            client.alter_user_scram_credentials([UserScramCredentialUpsertion(user, "SCRAM-SHA-512", PASSWORD)])
        with pytest.raises(kafka_errors.TopicAuthorizationFailedError) as failed:
            attempt.until_an_answer()
    assert str(unavailable(client_settings(kafka), "cannot write", failed.value)).endswith(
        f"allow user '{user}' READ, WRITE and DESCRIBE on the topic (kafka-acls)"
    )


def test_a_missing_password_file_is_named(secured: Secured, topic: str, password_file: Path) -> None:
    """It may come a moment later, from whoever keeps the secrets."""
    password_file.unlink()
    kafka = config(secured, "LOGIN", security="sasl_plaintext", user="alice", password_file=password_file)
    with writing(kafka, topic) as attempt:
        assert (
            f"password_file cannot be read: [Errno 2] No such file or directory: '{password_file}'" in attempt.failure()
        )
        password_file.write_text(PASSWORD)
        attempt.success()


def test_an_untrusted_authority_is_named_and_corrected(secured: Secured, topic: str, tmp_path: Path) -> None:
    """ca_file holds another authority: the file is rewritten while the client runs, and it connects."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(secured.stranger.ca_file.read_text())
    with writing(config(secured, "TLS", security="tls", ca_file=ca_file), topic) as attempt:
        failure = attempt.failure()
        assert f"the broker's certificate is vouched for by none of {ca_file}: correct ca_file" in failure
        ca_file.write_text(secured.authority.ca_file.read_text())
        attempt.success()


@pytest.mark.parametrize(
    ("listener", "told"),
    [
        ("EXPIRED", "the broker's certificate has expired: renew it on the broker"),
        ("ELSEWHERE", "the broker's certificate is not for this name: write bootstrap_servers as it names them"),
        ("PLAINTEXT", 'no TLS is spoken there: correct security = "tls", or the port'),
    ],
)
def test_a_broker_that_is_not_what_it_should_be_is_not_talked_to(
    secured: Secured, topic: str, listener: str, told: str
) -> None:
    """Its certificate is out of date or another machine's, or it has none: which, and where, is said."""
    kafka = config(secured, listener, security="tls", ca_file=secured.authority.ca_file)
    with writing(kafka, topic) as attempt:
        assert attempt.failure().startswith(f"{secured.bootstrap_of(listener)}: {told}")


def test_a_client_certificate_is_named_where_it_is_refused(secured: Secured, topic: str, tmp_path: Path) -> None:
    """Expired, with another's key, and right: the same client connects once the files are right."""
    certificate_file, key_file = tmp_path / "client.pem", tmp_path / "client.key"

    def install(certificate: Path, key: Path) -> None:
        certificate_file.write_text(certificate.read_text())
        key_file.write_text(key.read_text())

    expired, expired_key = secured.authority.issue("old", "client", expired=True)
    certificate, key = secured.authority.issue("client", "client")
    install(expired, expired_key)
    kafka = config(
        secured,
        "MUTUAL",
        security="tls",
        ca_file=secured.authority.ca_file,
        certificate_file=certificate_file,
        key_file=key_file,
    )
    with writing(kafka, topic) as attempt:
        assert f"the broker refuses certificate_file {certificate_file}: renew it" in attempt.failure()
        install(certificate, expired_key)
        wait_for("it", lambda: f"key_file {key_file} is not the key of certificate_file" in attempt.failure())
        install(certificate, key)
        attempt.success()


def test_a_broker_that_expects_what_is_not_configured(secured: Secured, topic: str, password_file: Path) -> None:
    """A login or a certificate is missing, or a login is not wanted: said with the key to correct."""
    ca_file = secured.authority.ca_file
    with writing(config(secured, "LOGIN"), topic) as attempt:
        assert "hangs up, as one that expects TLS or a login does: correct security = " in attempt.failure()
    with writing(config(secured, "MUTUAL", security="tls", ca_file=ca_file), topic) as attempt:
        assert "refuses a client without a certificate: set certificate_file and key_file" in attempt.failure()
    login = config(secured, "PLAINTEXT", security="sasl_plaintext", user="alice", password_file=password_file)
    with writing(login, topic) as attempt:
        assert "no login is expected there: correct security" in attempt.failure()


@pytest.mark.parametrize("security", ["plaintext", "tls"])
def test_a_broker_that_says_nothing_is_not_waited_for_without_end(security: str) -> None:
    """The connection is taken and nobody answers, as by a broker that stands still: said after ten seconds."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        settings = client_settings(msgspec.convert({"bootstrap_servers": [address], "security": security}, Kafka))
        consumer = KafkaConsumer(**settings)
        consumer.subscribe(["usage"])
        reason = wait_for("a reason", lambda: consumer.poll(1000) or trouble_of(settings))
        consumer.close(timeout_ms=1000)
    assert reason.startswith(f"{address}: ")
    assert "timed out" in reason


def test_a_login_that_was_changed_is_taken_at_the_next_connection(
    secured: Secured, topic: str, password_file: Path
) -> None:
    """The password is changed on the broker and in the file; the broker restarts, and the producer goes on with it."""
    with admin(config(secured, "PLAINTEXT")) as client:
        client.alter_user_scram_credentials([UserScramCredentialUpsertion("alice", "SCRAM-SHA-512", "first")])
    password_file.write_text("first\n")
    kafka = config(secured, "LOGIN", security="sasl_plaintext", user="alice", password_file=password_file)
    with writing(kafka, topic) as attempt:
        attempt.success()
        with admin(config(secured, "PLAINTEXT")) as client:
            client.alter_user_scram_credentials([UserScramCredentialUpsertion("alice", "SCRAM-SHA-512", PASSWORD)])
        password_file.write_text(PASSWORD)
        secured.restart()
        attempt.success()


def test_who_may_not_is_told_what_to_allow(secured: Secured, topic: str, password_file: Path) -> None:
    """carol is known and may do nothing: what to allow whom is said."""
    kafka = config(secured, "LOGIN", security="sasl_plaintext", user="carol", password_file=password_file)
    settings = client_settings(kafka)
    consumer = KafkaConsumer(**settings, group_id="wattribute-aggregate", auto_offset_reset="earliest")
    try:
        consumer.subscribe([topic])
        with pytest.raises(kafka_errors.AuthorizationError) as failed:
            wait_for("the refusal", lambda: consumer.poll(500))
        said = str(unavailable(settings, "cannot read", failed.value))
        assert "allow user 'carol' READ" in said
        assert "(kafka-acls)" in said
    finally:
        consumer.close(timeout_ms=1000)


def test_topics_whose_settings_may_not_be_read_are_not_taken_for_right(secured: Secured, password_file: Path) -> None:
    """carol may see nothing, then that the topics are there: neither is a difference, nor all well."""
    plain = Config(kafka=config(secured, "PLAINTEXT", topics=KafkaTopics(partitions=1, replication=1)))
    create_topics(plain)
    login: dict[str, Any] = {"security": "sasl_plaintext", "user": "carol", "password_file": password_file}
    carol = Config(kafka=config(secured, "LOGIN", topics=plain.kafka.topics, **login))
    for ask in (check_topics, create_topics):
        with pytest.raises(LogUnavailable, match="allow user 'carol' READ, WRITE and DESCRIBE on the topic"):
            ask(carol)
    names = ResourcePattern(ResourceType.TOPIC, "wattribute.", ACLResourcePatternType.PREFIXED)
    with admin(plain.kafka) as client:
        client.create_acls([ACL("User:carol", "*", ACLOperation.DESCRIBE, ACLPermissionType.ALLOW, names)])
    with pytest.raises(LogUnavailable, match="allow user 'carol' DESCRIBE_CONFIGS on it"):
        check_topics(carol)
