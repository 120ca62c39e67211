"""Which of kazoo's tests are left out, and which are known to fail, each with the reason.

A name is a part of pytest's: `file::class::test`, or less for several tests.
"""

# What they test, Corral does not have and says so, or a server alone does not have.
CANNOT_APPLY = {
    "test_client.py::TestReconfig": "dynamic reconfiguration: every request is answered as by a server that has it disabled",
    "test_client.py::TestSSLClient": "TLS",
    "test_sasl.py::TestLegacySASLDigestAuthentication::test_connect_sasl_auth": "SASL (DIGEST-MD5)",
    "test_sasl.py::TestSASLDigestAuthentication::test_connect_sasl_auth": "SASL (DIGEST-MD5)",
    "test_sasl.py::TestSASLGSSAPIAuthentication": "SASL with Kerberos, and a KDC",
}

# What Corral has to do and does not. A test that passes although it is listed here fails the run.
FAILS = {
    "test_connection.py::TestReadOnlyMode::test_read_only":
        "there is no read-only mode (readonlymode.enabled): a member without a quorum serves nobody",
}


def find(table, test):
    """The reason, if the test is in the table."""
    return next((reason for name, reason in table.items() if name in test), None)
