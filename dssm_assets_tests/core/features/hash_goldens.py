"""Hashes of values of many lengths, computed by the two references themselves.

murmur_hash64a: `std::hash<std::string>` of libstdc++ (g++ 12). farm_fingerprint64: `Fingerprint64` of Google's FarmHash
(pyfarmhash 0.5.1). The value of n bytes is the first n bytes of SHAKE128 of the decimal digits of n.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Golden:
    value: bytes
    murmur: int
    farm: int


def goldens() -> list[Golden]:
    """Returns one golden per line of the table."""
    return [_golden(*line.split()) for line in _TABLE.splitlines()]


def _golden(length: str, murmur: str, farm: str) -> Golden:
    return Golden(hashlib.shake_128(length.encode()).digest(int(length)), int(murmur, 16), int(farm, 16))


_TABLE = """\
0 553e93901e462a6e 9ae16a3b2f90404f
1 4c725ecf135d93ce aa3793235dd43b13
2 d20f7c783ca26d7a e668671d78ee8333
3 a628db49f4e6e856 0e62cf787cf9d9fa
4 49e20b2e076570ab 7855833408018b88
5 765cebb5d76f3bed 9e55e472e9cb70b8
6 9d0dbbbd89101c9e 8b539cab335bc557
7 2447b34259c19970 1f123f15f8cdb3b5
8 e8eb323a3a2adaec c5e2e2dc94aa3d90
9 e663e8678ac9281b 0f830b178607ff28
10 5530f74ea8a20127 93ee9d1156f2568f
11 2252a0d14ef71b68 6192ba69ef367924
12 56b12f19f32800f0 63ec409f7cb2d382
13 45f43e77d62e2b22 44aa6ff93a54243e
14 9208eae894f58f37 e276a3c49a926263
15 cb461eaf0b701d07 0bf9c8ed1c084d1c
16 699e63e1b20136e5 bb334f05c06e6243
17 89498f1041740013 d8d1224ec2ac9b00
31 41eac59bc81ef47a 2a9cad1dd7732dbf
32 0ae6bbbfd5ee3e46 38783e061739839d
33 9b463b5f32df2c30 4c52da787dac2923
40 ab87aeab14d8e721 ed602f92a3a57277
63 8d42bcba23cd0a20 4cc17c07b5fd2a89
64 7f946228791f1f7d a05b199bcca3ae91
65 ad2b0e60345a6fb3 cd1572c4c9a250fa
127 72dfb62afa36d1b3 8a180d4c035c1963
128 da0fe7027429e30f c01cdb886b9fbab4
129 7524ac50339264ee 8921c5b5424fad4d
193 6a61df6aaaab1fb6 9933f6d69f6a97af
256 ee6db0b337372123 2510f3f0fdd499a5
1000 b53dcc88680a2d02 3d36a85a670066f1
"""
"""Bytes, murmur_hash64a and farm_fingerprint64 in hexadecimal digits."""
