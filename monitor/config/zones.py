"""Grid zones: from an Electricity Maps zone key to the country whose yearly electricity mix stands in for it."""

import difflib
import re
from typing import Final

from monitor.config.problems import Faulty, shown

# ISO 3166-1: alpha-2 and alpha-3 of every country and territory, 249 pairs (state of 2024).
_ISO_3166: Final = """
    AD AND  AE ARE  AF AFG  AG ATG  AI AIA  AL ALB  AM ARM  AO AGO  AQ ATA  AR ARG  AS ASM  AT AUT  AU AUS  AW ABW
    AX ALA  AZ AZE  BA BIH  BB BRB  BD BGD  BE BEL  BF BFA  BG BGR  BH BHR  BI BDI  BJ BEN  BL BLM  BM BMU  BN BRN
    BO BOL  BQ BES  BR BRA  BS BHS  BT BTN  BV BVT  BW BWA  BY BLR  BZ BLZ  CA CAN  CC CCK  CD COD  CF CAF  CG COG
    CH CHE  CI CIV  CK COK  CL CHL  CM CMR  CN CHN  CO COL  CR CRI  CU CUB  CV CPV  CW CUW  CX CXR  CY CYP  CZ CZE
    DE DEU  DJ DJI  DK DNK  DM DMA  DO DOM  DZ DZA  EC ECU  EE EST  EG EGY  EH ESH  ER ERI  ES ESP  ET ETH  FI FIN
    FJ FJI  FK FLK  FM FSM  FO FRO  FR FRA  GA GAB  GB GBR  GD GRD  GE GEO  GF GUF  GG GGY  GH GHA  GI GIB  GL GRL
    GM GMB  GN GIN  GP GLP  GQ GNQ  GR GRC  GS SGS  GT GTM  GU GUM  GW GNB  GY GUY  HK HKG  HM HMD  HN HND  HR HRV
    HT HTI  HU HUN  ID IDN  IE IRL  IL ISR  IM IMN  IN IND  IO IOT  IQ IRQ  IR IRN  IS ISL  IT ITA  JE JEY  JM JAM
    JO JOR  JP JPN  KE KEN  KG KGZ  KH KHM  KI KIR  KM COM  KN KNA  KP PRK  KR KOR  KW KWT  KY CYM  KZ KAZ  LA LAO
    LB LBN  LC LCA  LI LIE  LK LKA  LR LBR  LS LSO  LT LTU  LU LUX  LV LVA  LY LBY  MA MAR  MC MCO  MD MDA  ME MNE
    MF MAF  MG MDG  MH MHL  MK MKD  ML MLI  MM MMR  MN MNG  MO MAC  MP MNP  MQ MTQ  MR MRT  MS MSR  MT MLT  MU MUS
    MV MDV  MW MWI  MX MEX  MY MYS  MZ MOZ  NA NAM  NC NCL  NE NER  NF NFK  NG NGA  NI NIC  NL NLD  NO NOR  NP NPL
    NR NRU  NU NIU  NZ NZL  OM OMN  PA PAN  PE PER  PF PYF  PG PNG  PH PHL  PK PAK  PL POL  PM SPM  PN PCN  PR PRI
    PS PSE  PT PRT  PW PLW  PY PRY  QA QAT  RE REU  RO ROU  RS SRB  RU RUS  RW RWA  SA SAU  SB SLB  SC SYC  SD SDN
    SE SWE  SG SGP  SH SHN  SI SVN  SJ SJM  SK SVK  SL SLE  SM SMR  SN SEN  SO SOM  SR SUR  SS SSD  ST STP  SV SLV
    SX SXM  SY SYR  SZ SWZ  TC TCA  TD TCD  TF ATF  TG TGO  TH THA  TJ TJK  TK TKL  TL TLS  TM TKM  TN TUN  TO TON
    TR TUR  TT TTO  TV TUV  TW TWN  TZ TZA  UA UKR  UG UGA  UM UMI  US USA  UY URY  UZ UZB  VA VAT  VC VCT  VE VEN
    VG VGB  VI VIR  VN VNM  VU VUT  WF WLF  WS WSM  YE YEM  YT MYT  ZA ZAF  ZM ZMB  ZW ZWE
"""
# Not in ISO 3166, but user-assigned everywhere, Electricity Maps included: Kosovo.
_USER_ASSIGNED: Final = "XK XKX"
_CODES: Final = (_ISO_3166 + _USER_ASSIGNED).split()
ISO3_BY_ISO2: Final = dict(zip(_CODES[::2], _CODES[1::2], strict=True))
_ISO3: Final = frozenset(ISO3_BY_ISO2.values())
_SAID_INSTEAD: Final = {"UK": "GB", "EL": "GR", "USA-CA": "US-CAL-CISO"}
_ZONE = re.compile("([A-Z]{2})(-[A-Z0-9]{1,8}){0,3}")


def iso3_of_zone(zone: str) -> str | None:
    """The ISO 3166 alpha-3 code of a zone's country, None if there is none: "US-CAL-CISO" is "USA", "FRA" is "FRA"."""
    if zone in _ISO3:
        return zone
    match = _ZONE.fullmatch(zone)
    return ISO3_BY_ISO2.get(match.group(1)) if match else None


def zone_key(text: str) -> str:
    """The zone as it came, once its country is known; "" is unknown. Raises Faulty, with the zone that was meant."""
    if text and iso3_of_zone(text) is None:
        meant = _meant(text.upper())
        advice = f"did you mean {shown(meant)}?" if meant else 'write an Electricity Maps zone key, as in "FR"'
        raise Faulty(f"{shown(text)} is not a grid zone; {advice}")
    return text


def _meant(text: str) -> str | None:
    if text in _SAID_INSTEAD:
        return _SAID_INSTEAD[text]
    if iso3_of_zone(text.replace("_", "-")) is not None:
        return text.replace("_", "-")
    country, dash, region = text.partition("-")
    near = difflib.get_close_matches(country, sorted([*ISO3_BY_ISO2, *_ISO3]), n=1, cutoff=0.6)
    return near[0] + (dash + region if iso3_of_zone(near[0] + dash + region) else "") if near else None
