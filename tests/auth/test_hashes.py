"""Password hashes: which schemes verify, and what is said of the others."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from passlib import hash as passlib

from mtatwist.auth import hashes
from mtatwist.auth.hashes import UnusableHash

RIGHT = "pässword ↑"

#: What other programs made of RIGHT.
FOREIGN = dict(
    line.rsplit(maxsplit=1)
    for line in """
slappasswd {SSHA}dGyxh3FYRIqwdxmwMctmg5rpNP0bH4uQ
slappasswd pw-sha2 512 {SSHA512}9BelSCrp+QxMbKOAxmBVvIuV4OelIvYHctvyKCqqMS69FSJU7/f14a4qfJ0LqKJq6WJGQvwfUlVBKhSs0oZRP7Z2pakUe2DJ
slappasswd pw-sha2 256 {SSHA256}xi0Qaav/r/iFBD7JgVYr50/D64hheSvuGLQ7if8TnFqSyQbDPR8jxQ==
slappasswd pw-pbkdf2 512 {PBKDF2-SHA512}10000$6o1kEscJU/MLyB9K3O7bag$krJGOJqvIdCZWUw7eVS708skNP1iicZhe2anpQu2HvgMQWgXgxdjtN3cpi6QNTwiTlUP4Pgk.xqmIdkG86MWaw
slappasswd pw-pbkdf2 {PBKDF2}10000$eWvCU0rF0XJB7oGSz1DiRw$fyxKbs9lX1kSF1FyM9G3kBBYgsw
slappasswd argon2 {ARGON2}$argon2i$v=19$m=4096,t=3,p=1$EHR2+bbQWkFtSLmZTbV99Q$RtKem4R5t5irvc5ia5feYvR4ypEWNR0MktJWRNnMvTY
slappasswd crypt 6 {CRYPT}$6$dhhLVLfoQYo3zaI9$8vhKsxUG8t5l.Mop3Y/uFgy6W0bf9y2mhf/msgtY2YQlg3svLc0WiiQ3Yw1BbyMpA.TWfnrL6.eSSBX.3oIyO.
slappasswd crypt 5 {CRYPT}$5$ZHVdDQFN.UNrYcYG$DSEt3bsb49hJOKAHIRHLRqGRb5PycCEM/8Sla.JJPo4
slappasswd crypt 1 {CRYPT}$1$QLkok8Uq$0ki5SQPbqaOmTmBfOmJNt.
doveadm blowfish {BLF-CRYPT}$2y$05$2hzXgMYxzFfsaqUhav3ogeLxZvk5h9ZRwe1dN5KtH2mw0gsVJWsaq
doveadm crypt {CRYPT}$2y$05$4LI3BggSs2an.lKjOsifIem8lYiFu1to2N9dv5vWg0PZDRLuLcx1q
doveadm argon2i {ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$uSSWr+vHwlIfHg8OMeZmIg$OUNYjJWV4+mqV3XiAXYBI5qiiojdp60w7rLECudRGec
doveadm argon2id {ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$crGrtJbeWGtn/DN32z3F3g$CValKbHKjSsa9e3ChXIhTahNIt/5UpFEyYVDngffc3U
doveadm sha512 {SHA512-CRYPT}$6$6zJTYnP0IaGooEnh$Ke34n0naNI1ulWgtNS/8M7LyzR4aXAe3T8tDhlnyaD.jFTLdApbsw6OWuaiHkTYsQ6vv2bjmDIQbwui.ZheTg.
openssl 5 $5$zp8rxczUdCFkcr.m$jSAjEDEKiaxzCKoJIvMY2XTJIz5Eq1tKMLv0R4q/5y/
openssl 1 $1$AzJ6xtdH$SXCJZJ22jRCHiMedf4w4n/
""".strip().splitlines()  # noqa: E501
)

#: The names that they are shown by, and quick ones of each.
SCHEMES = {
    "{SSHA}": passlib.ldap_salted_sha1,
    "{SSHA256}": passlib.ldap_salted_sha256,
    "{SSHA512}": passlib.ldap_salted_sha512,
    "{SHA}": passlib.ldap_sha1,
    "{SMD5}": passlib.ldap_salted_md5,
    "{MD5}": passlib.ldap_md5,
    "md5_crypt": passlib.ldap_md5_crypt,
    "sha256_crypt": passlib.ldap_sha256_crypt.using(rounds=1000),
    "sha512_crypt": passlib.ldap_sha512_crypt.using(rounds=1000),
    "bcrypt": passlib.bcrypt.using(rounds=4),
    "bcrypt_sha256": passlib.bcrypt_sha256.using(rounds=4),
    "scrypt": passlib.scrypt.using(rounds=4),
    "pbkdf2_sha1": passlib.ldap_pbkdf2_sha1.using(rounds=100),
    "pbkdf2_sha256": passlib.ldap_pbkdf2_sha256.using(rounds=100),
    "pbkdf2_sha512": passlib.ldap_pbkdf2_sha512.using(rounds=100),
    "argon2": passlib.argon2.using(rounds=1, memory_cost=64),
}


def checked(text: str) -> None:
    assert hashes.verify(RIGHT, text)
    for wrong in ("", "password", RIGHT + " ", RIGHT + "\0", "\0", "\udcff", "x" * 2000):
        assert not hashes.verify(wrong, text)


@pytest.mark.parametrize("program", FOREIGN)
def test_hashes_of_other_programs_verify(program: str) -> None:
    checked(FOREIGN[program])


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_verifies_and_has_a_name(name: str) -> None:
    text = SCHEMES[name].hash(RIGHT)
    checked(text)
    assert hashes.scheme(text) == name


@pytest.mark.parametrize("label", ["{ssha}", "{Ssha}", "{crypt}", "{Argon2}", "{bcrypt}"])
def test_labels_are_read_in_any_case(label: str) -> None:
    scheme = {"{ARGON2}": "argon2", "{BCRYPT}": "bcrypt", "{CRYPT}": "sha512_crypt"}.get(label.upper(), "{SSHA}")
    checked(label + SCHEMES[scheme].hash(RIGHT).removeprefix(label.upper()))


def test_what_is_made_is_argon2_with_a_salt() -> None:
    one, other = hashes.make(RIGHT), hashes.make(RIGHT)
    assert one.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert one != other
    checked(one)


@pytest.mark.parametrize("label", ["", "{BCRYPT}", "{CRYPT}"])
def test_bcrypt_does_not_take_a_password_of_which_it_sees_the_beginning_only(label: str) -> None:
    text = label + passlib.bcrypt.using(rounds=4).hash("ä" * 36)
    assert hashes.verify("ä" * 36, text)
    assert not hashes.verify("ä" * 36 + "x", text)


UNUSABLE = {
    "": "no hash that is known here",
    "secret": "passwords themselves are not accepted",
    "secretsecret1": "passwords themselves are not accepted",
    "{PLAIN}secret": "{PLAIN} is not a scheme that is known here",
    "{CLEARTEXT}secret": "{CLEARTEXT} is not a scheme that is known here",
    "{SASL}me@example.org": "{SASL} is not a scheme that is known here",
    "{CRYPT}VppELAGmtUMF2": "no hash that is known here",
    "{CRYPT}secret": "passwords themselves are not accepted",
    "$y$j9T$abcdefgh$0123456789": "$y$: yescrypt is not known here",
    "$7$abc$def": "$7$: its scheme is not known here",
    "{SSHA}": "is damaged (it begins like {SSHA})",
    "{SSHA}secret!": "is damaged (it begins like {SSHA})",
    "$6$salt": "is damaged (it begins like sha512_crypt)",
    "$6$salt$secret": "is damaged (it begins like sha512_crypt)",
    "$2b$99$" + "." * 53: "is damaged (it begins like bcrypt)",
    "$argon2id$v=19$m=65536,t=3,p=4$secret": "is damaged (it begins like argon2)",
    "{PBKDF2}$1$A.QDYsDDn6nhYm7x$5000$09ea50e33fd19a346c06963c4ba846c4961e1888": "is damaged",
    "{SHA}secrét": "is damaged",
}


@pytest.mark.parametrize("text", UNUSABLE)
def test_what_can_not_be_used_says_why_and_what_helps(text: str) -> None:
    for ask in (hashes.scheme, lambda it: hashes.verify("secret", it)):
        with pytest.raises(UnusableHash) as refused:
            ask(text)
        assert UNUSABLE[text] in str(refused.value)
        assert str(refused.value).endswith(": make another with mtactl users passwd")
        assert "secret" not in str(refused.value)


@given(
    st.builds(
        lambda start, rest: start + rest,
        st.sampled_from(
            ["", *(f"{{{label}}}" for label in ("SSHA", "CRYPT", "PBKDF2", "X")), "$6$", "$2b$", "$argon2id$"]
        ),
        st.text(st.sampled_from(string.ascii_letters + string.digits + "$./=,{}é\0\udcff")),
    )
)
def test_no_text_is_too_strange(text: str) -> None:
    try:
        assert hashes.scheme(text)
    except UnusableHash as refused:
        assert len(text) < 10 or text not in str(refused)
