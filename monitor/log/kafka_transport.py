"""The socket to a broker: kafka-python 3.0's own, with what it forgets.

It drops an answer where the end of the connection comes right behind it, which is how a broker refuses a login; it
waits without end for a broker that takes the connection and then says nothing to the TLS handshake; and it leaves the
socket open where the handshake fails.
"""

import ssl
from collections.abc import Mapping
from typing import Any

from kafka import errors as kafka_errors
from kafka.net.inet import create_connection
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport


class PlainTransport(KafkaTCPTransport):  # type: ignore[misc]
    """Without TLS."""

    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        received, error = super()._sock_recv()
        return (received, None) if received else (received, error)  # the end is met again at the next read


class TlsTransport(KafkaSSLTransport):  # type: ignore[misc]
    """With TLS. The handshake has to be over by `timeout_at`, a reading of the monotonic clock."""

    timeout_at: float | None = None

    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        received, error = super()._sock_recv()
        return (received, None) if received else (received, error)

    async def handshake(self) -> None:
        """Raises SSLError, OSError or KafkaTimeoutError."""
        while True:
            try:
                self._sock.do_handshake()
            except ssl.SSLWantReadError:
                await self._net.wait_read(self._sock, self.timeout_at)
            except ssl.SSLWantWriteError:
                await self._net.wait_write(self._sock, self.timeout_at)
            else:
                return


async def connected(
    net: Any, config: Mapping[str, Any], host: str, port: int, timeout_at: float | None
) -> PlainTransport | TlsTransport:
    """A transport to that broker, its handshake done. Raises KafkaError, OSError; nothing is left open then."""
    sock = await create_connection(
        net, host, port, config["socket_options"], proxy_url=config["proxy_url"], timeout_at=timeout_at
    )
    if config["security_protocol"] not in ("SSL", "SASL_SSL"):
        return PlainTransport(net, sock, host=host)
    try:
        transport = TlsTransport(
            net, sock, host=host, **{key: value for key, value in config.items() if key.startswith("ssl_")}
        )
    except (OSError, ValueError):  # a file that cannot be read, or is no certificate or key
        sock.close()
        raise
    transport.timeout_at = timeout_at
    shaken = False
    try:
        await transport.handshake()
        shaken = True
    except (OSError, ValueError, kafka_errors.KafkaError) as error:
        raise kafka_errors.KafkaConnectionError(f"TLS handshake failed: {error}") from error
    finally:  # also where the client is closed meanwhile, which ends this coroutine
        if not shaken:
            transport.close()
    return transport
