"""Hashes of values of many lengths, computed by the two references themselves.

murmur_hash64a: `std::hash<std::string>` of libstdc++ (g++ 12). farm_fingerprint64: `Fingerprint64` of Google's FarmHash
(pyfarmhash 0.5.1). The value of n bytes is the first n bytes of SHAKE128 of the decimal digits of n.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Golden:
    """A value and its hashes."""

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
18 67bc8f038df6fcab 39b9c7e5d9be1323
19 51be71b2c667383d b8a4823a7a0fa708
20 254537dae5d2e9c4 e8c78c141230f446
21 1f62e17dcbbb3964 975243302fd78b79
22 8c111d49b5e288c7 fbe2a10faab01e14
23 0af98f490288c2f0 d81aba827196b486
24 e831e2f409de8298 743566a5f582a61f
25 1d8409ac8f2e0a5b 6854b29915b14519
26 6d00a2bdbbcc8c2a 57e8d8d3c2cd1b0c
27 1f2f9a0f00461dbd 5da278643154cc8a
28 2e9d10bf5868530d 82fa468da62988df
29 915b041a1557f6f2 4c2fda2688a6f4e1
30 3781da604f83b109 2a95fb8b8dade1aa
31 41eac59bc81ef47a 2a9cad1dd7732dbf
32 0ae6bbbfd5ee3e46 38783e061739839d
33 9b463b5f32df2c30 4c52da787dac2923
34 1a4b6c2e9594a917 f1d4eb40eda793a7
39 06bb84b10514a83e 7c04e07fc6773c98
40 ab87aeab14d8e721 ed602f92a3a57277
41 bd766d951de6213a 4fe53bb63ae6801c
47 b03c9bc95e6e5b41 245c251868b124ca
48 b693dc79d8799eed 59651f81d13347dd
55 82d402066ce2c27f ac3e0ed10089043b
56 178f18aea379acd7 e95cef8b89bf6d3e
57 87f0ac9201386ec7 2b1f5d5b180c1d13
63 8d42bcba23cd0a20 4cc17c07b5fd2a89
64 7f946228791f1f7d a05b199bcca3ae91
65 ad2b0e60345a6fb3 cd1572c4c9a250fa
66 eacf77dd19b0ca41 d396c42821c4f8f5
72 8429bc2505f430bd 34695633e9c0af9b
96 25f7affbce4a3667 1a6f76854e159744
100 e3507eda0f145e05 1d1e5578303ab961
126 9ed3fd3afca3311f 2a8e1339398eb140
127 72dfb62afa36d1b3 8a180d4c035c1963
128 da0fe7027429e30f c01cdb886b9fbab4
129 7524ac50339264ee 8921c5b5424fad4d
130 84c36e7e2fc3eb56 e0f6efc97bba81fd
191 1ad79ba01765d3b8 0e2c1ba572eec3f0
192 4958176980bbe9ea 20c225630507a562
193 6a61df6aaaab1fb6 9933f6d69f6a97af
194 9eed4ddc0b0de083 4988905c2b0a1ac5
200 2cf3d5f7c6b3bd8f 4b2e981b9ef026b8
255 7c1a370aa457bc6e 0e54e475768b4014
256 ee6db0b337372123 2510f3f0fdd499a5
257 5daf220d462d1be9 f2d573c90905a924
511 0ddb0bda0ceb67bf e1624e0941de3fc8
512 53208b777a5326b7 0f0dbdf9419e1bb5
513 3243044af02635f9 6390b664101be7cd
1000 b53dcc88680a2d02 3d36a85a670066f1
"""
"""Bytes, murmur_hash64a and farm_fingerprint64 in hexadecimal digits."""
