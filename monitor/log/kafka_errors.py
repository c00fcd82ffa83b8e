"""What the errors of kafka-python mean to a person, and what to do about each. Words only; nothing connects here."""

import os
import re
from typing import Final

from kafka import errors as kafka_errors

from monitor.config.output_sections import Kafka

_LONGEST: Final = 300

_THEIRS: Final = "the broker's certificate"
_OURS: Final = "the broker refuses {ours}"
_NO_TLS: Final = 'no TLS is spoken there: correct security = "{security}", or the port'
_USER: Final = "the broker refuses {who} with what stands in {password_file}: correct it"
_FAILED_CONNECTIONS: Final = (
    ("certificate has expired", f"{_THEIRS} has expired: renew it on the broker"),
    ("certificate is not yet valid", f"{_THEIRS} is not valid yet: check both clocks"),
    ("mismatch, certificate is not valid", f"{_THEIRS} is not for this name: write bootstrap_servers as it names them"),
    ("CERTIFICATE_VERIFY_FAILED", f"{_THEIRS} is vouched for by none of {{roots}}: correct ca_file"),
    ("KEY_VALUES_MISMATCH", "key_file {key_file} is not the key of certificate_file {certificate_file}"),
    ("[X509", "ca_file {ca_file} or certificate_file {certificate_file} holds no certificate"),
    ("[SSL] PEM", "certificate_file {certificate_file} or key_file {key_file} is not in PEM form"),
    ("ALERT_CERTIFICATE", _OURS),
    ("ALERT_BAD_CERTIFICATE", _OURS),
    ("CERTIFICATE_REQUIRED", _OURS),
    ("ALERT_UNKNOWN_CA", _OURS),
    ("WRONG_VERSION_NUMBER", _NO_TLS),
    ("UNEXPECTED_EOF", _NO_TLS),
    ("Invalid frame length", 'not what is spoken there: correct security = "{security}", or the port'),
    ("SaslAuthenticationFailed", _USER),
    ("UnsupportedSaslMechanism", 'the broker does not offer sasl_mechanism = "{sasl_mechanism}": correct it'),
    ("IllegalSaslState", 'no login is expected there: correct security = "{security}", or the port'),
    ("FileNotFoundError", "{unreadable} is not there: put it back"),
    ("PermissionError", "{unreadable} cannot be read: correct its permissions"),
)
"""What shows in the error of a connection, the most telling first, and what it means."""
_HUNG_UP: Final = "socket disconnected"
_AT_THE_LOGIN: Final = (
    "the broker hangs up at the login, as it does when it refuses {who} with what stands in {password_file}: correct it"
)
_AT_THE_FIRST_QUESTION: Final = (
    'the broker hangs up, as one that expects TLS or a login does: correct security = "{security}", or the port'
)

_ON_THE_TOPIC: Final = "allow {who} READ, WRITE and DESCRIBE on the topic (kafka-acls)"
_MAKE_TOPICS: Final = "check [kafka.topics], and make the topics with: wattribute topics create"
_REPLICAS: Final = "too few replicas are in sync (min.insync.replicas): start the missing brokers"
_TOO_LARGE: Final = "raise the topic's max.message.bytes: wattribute topics check says to what"
_ANSWERS: Final = (
    (kafka_errors.TopicAuthorizationFailedError, _ON_THE_TOPIC),
    (kafka_errors.GroupAuthorizationFailedError, "allow {who} READ on groups that begin with {group!r} (kafka-acls)"),
    (kafka_errors.ClusterAuthorizationFailedError, "allow {who} IDEMPOTENT_WRITE on the cluster (kafka-acls)"),
    (kafka_errors.UnknownTopicOrPartitionError, _MAKE_TOPICS),
    (kafka_errors.InvalidTopicError, _MAKE_TOPICS),
    (kafka_errors.NotEnoughReplicasError, _REPLICAS),
    (kafka_errors.NotEnoughReplicasAfterAppendError, _REPLICAS),
    (kafka_errors.MessageSizeTooLargeError, _TOO_LARGE),
    (kafka_errors.RecordListTooLargeError, _TOO_LARGE),
)
_ELSE: Final = "check that the brokers run, are reached from here, and have the topics (wattribute topics check)"


def reason_of(kafka: Kafka, error: BaseException) -> str:
    """Why a connection failed, which user, file or certificate is to blame, and what to do about it; one line."""
    text = said(error)
    if _HUNG_UP in text:
        meaning = _AT_THE_LOGIN if kafka.security.startswith("sasl") else _AT_THE_FIRST_QUESTION
        return f"{_filled(meaning, kafka)} ({text})"
    for sign, meaning in _FAILED_CONNECTIONS:
        if sign in text:
            return f"{_filled(meaning, kafka)} ({text})"
    return f"{text}; check bootstrap_servers, and that the brokers run and are reached from here"


def advice(kafka: Kafka, error: BaseException) -> str:
    """What to do about an error that a client raised."""
    return _filled(next((meaning for kind, meaning in _ANSWERS if isinstance(error, kind)), _ELSE), kafka)


def answered(error: BaseException) -> bool:
    """Whether a broker said that of a request of ours, so that it was reached and let us in."""
    not_reached = kafka_errors.RequestTimedOutError | kafka_errors.SaslAuthenticationFailedError
    return isinstance(error, kafka_errors.BrokerResponseError) and not isinstance(error, not_reached)


def said(error: BaseException) -> str:
    """The error's kind and text in one line, without kafka-python's number for it."""
    name, text = type(error).__name__, " ".join(str(error).split())
    text = re.sub(r"^\[Error \d+\] ", "", text)[:_LONGEST]
    return text if text.startswith(name) else f"{name}: {text}".rstrip(": ")


def _filled(meaning: str, kafka: Kafka) -> str:
    ours = f"certificate_file {kafka.certificate_file}: renew it, or let the broker trust its authority"
    return meaning.format(
        who=f"user {kafka.user!r}" if kafka.user else "this client",
        ours=ours if kafka.certificate_file else "a client without a certificate: set certificate_file and key_file",
        roots=kafka.ca_file or "the system's authorities (ca_file is not set)",
        ca_file=kafka.ca_file,
        certificate_file=kafka.certificate_file,
        key_file=kafka.key_file,
        password_file=kafka.password_file,
        unreadable=_unreadable(kafka),
        security=kafka.security,
        sasl_mechanism=kafka.sasl_mechanism,
        group=kafka.group,
    )


def _unreadable(kafka: Kafka) -> str:
    files = {key: getattr(kafka, key) for key in ("ca_file", "certificate_file", "key_file", "password_file")}
    names = [f"{key} {file}" for key, file in files.items() if file is not None and not os.access(file, os.R_OK)]
    return names[0] if names else "a file that [kafka] names"
