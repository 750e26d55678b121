// Loss recovery as scripts (tests/support/tcp_script.h has the language): what is sent when, and what is
// concluded. The round trip is 10 ms unless a case says otherwise, the algorithm Reno.
#include <gtest/gtest.h>

#include <string>

#include "tests/support/tcp_script.h"

namespace ustack::test {
namespace {

struct Case {
  std::string name;
  ScriptOptions options;
  /// "tcp_frto=0 tcp_reordering=5"
  std::string settings;
  std::string script;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

constexpr ScriptOptions kSack{}, kNoSack{.sack = false}, kTimestamps{.timestamps = true},
    kTimestampsOnly{.sack = false, .timestamps = true}, kSuperframes{.superframes = true};

class RecoveryScript : public testing::TestWithParam<Case> {};

TEST_P(RecoveryScript, GoesAsWritten) {
  ScriptOptions options = GetParam().options;
  std::string_view rest = GetParam().settings;
  while (!rest.empty()) {
    std::string_view word = rest.substr(0, rest.find(' '));
    rest.remove_prefix(std::min(rest.size(), word.size() + 1));
    size_t equals = word.find('=');
    std::string name = "net.ipv4." + std::string(word.substr(0, equals));
    ASSERT_TRUE(options.settings.set(name, word.substr(equals + 1)).ok()) << name;
  }
  TcpScript(options).run(GetParam().script);
}

std::string case_name(const testing::TestParamInfo<Case>& info) { return info.param.name; }

// RFC 8985, section 6; the duplicate threshold as in Linux.
INSTANTIATE_TEST_SUITE_P(
    Rack, RecoveryScript,
    testing::Values(Case{"ThreeSackedSegmentsMakeALoss", kSack, "", R"(
  write 10
  > 0-9
  +10 < 0 sack 1
  >
  < 0 sack 1-2
  >
  < 0 sack 1-3
  > 0
  ? state recovery
  ? ssthresh 5
  ? TCPSackRecovery 1
  ? TCPFastRetrans 1
  < 10
  ? state open
  ? cwnd 5
  ? TCPTimeouts 0
)"},
                    Case{"ThreeInOneBlockDoToo", kSack, "", R"(
  write 10
  > 0-9
  +10 < 0 sack 7-9
  > 0-2
  ? lost 7
)"},
                    Case{"OneAboveWaitsAQuarterOfARoundTrip", kSack, "", R"(
  write 10
  > 0-9
  +10 < 0 sack 1
  >
  ? state disorder
  +3.4 >
  +0.2 > 0
  ? state recovery
  ? TCPSackRecovery 1
)"},
                    Case{"TwoOfAFlightOfTwo", kSack, "", R"(
  write 2
  > 0-1
  +10 < 0 sack 1
  +3.6 > 0
  +10 < 2
  ? state open
  ? TCPTimeouts 0
)"},
                    Case{"ReorderingWithinTheWindowIsNoLoss", kSack, "", R"(
  write 10
  > 0-9
  +10 < 0 sack 1
  +1 < 10
  >
  ? state open
  ? cwnd 19
  ? TCPSACKReorder 1
  ? TCPSackRecovery 0
)"},
                    Case{"OnceReorderingWasSeenThreeAreNotEnough", kSack, "", R"(
  write 10
  > 0-9
  +10 < 0 sack 1
  +1 < 10
  ? reordering 10
  write 10
  > 10-19
  +10 < 10 sack 11-14
  >
  +3.6 > 10                       # a quarter of the round trip later
  ? TCPSackRecovery 1
)"},
                    Case{"TheDegreeOfReorderingIsBounded", kSack, "tcp_max_reordering=5", R"(
  write 10
  > 0-9
  +10 < 0 sack 9
  +1 < 10
  ? reordering 5
)"},
                    Case{"TheThresholdIsASetting", kSack, "tcp_reordering=5", R"(
  write 10
  > 0-9
  +10 < 0 sack 1-4
  >
  < 0 sack 1-5
  > 0
)"},
                    Case{"WithoutTheThresholdOnlyTimeCounts", kSack, "tcp_recovery=5", R"(
  write 10
  > 0-9
  +10 < 0 sack 1-9
  >
  +3.6 > 0
)"},
                    Case{"ALostRetransmissionIsFoundByWhatWasSentAfterIt", kSack, "", R"(
  write 10
  > 0-9
  +10 < 0 sack 1-3
  > 0
  < 0 sack 1-9
  write 10
  > 10-13
  +10 < 0 sack 1-10
  > 0 14
  ? TCPLostRetransmit 1
  < 0 sack 1-13
  > 15-17
  +10 < 15
  ? state open
  ? TCPTimeouts 0
)"},
                    Case{"EachLossIsRepairedOnce", kSack, "", R"(
  write 10
  > 0-9
  +10 < 0 sack 1-3
  > 0
  +1 < 0 sack 1-3
  +1 < 0 sack 1-3
  >
)"},
                    Case{"SeveralHolesInOneRoundTrip", kSack, "", R"(
  write 12
  > 0-9
  +10 < 0 sack 1 3 5-6
  > 0 2
  < 0 sack 1 3 5-7
  > 4
  < 0 sack 1 3 5-9
  > 10-11
  +10 < 10
  ? state open
  ? TCPFastRetrans 3
)"},
                    Case{"ATailIsRepairedWhenTheHeadIsAcknowledged", kSack, "", R"(
  write 10
  > 0-9
  +10 < 2 sack 4-6
  > 2-3
  ? state recovery
)"},
                    Case{"ARetransmissionsAckSoonerThanARoundTripIsTheOriginals", kSack, "", R"(
  write 10
  > 0-9
  +10 < 0 sack 1-3
  > 0
  +1 < 4                         # of the original: says nothing about what was sent before now
  >
  ? state recovery
)"},
                    Case{"SuperframesAreJudgedBySegment", kSuperframes, "", R"(
  write 10
  > 0-9
  +10 < 3 sack 5-7
  > 3-4
  ? lost 2
  ? sacked 3
  < 10
  ? state open
)"},
                    Case{"SacksOfBytesDontCutSegments", kSuperframes, "", R"(
  write 10
  > 0-9
  +10 < 0 sack 1100b-1200b 3300b-3400b
  ? sacked 0
  < 0 sack 1500b-4500b
  ? sacked 2
)"},
                    Case{"ASackThatGrowsIsTakenWhole", kSuperframes, "", R"(
  write 10
  > 0-9
  +10 < 0 sack 4000b-4500b
  ? sacked 0
  < 0 sack 4000b-5500b
  ? sacked 1
  < 0 sack 4000b-6000b
  ? sacked 2
)"},
                    Case{"ADelayedAckIsNoLoss", kSack, "", R"(
  write 2
  > 0-1
  +10 < 1
  +1 < 2
  >
  ? TCPSackRecovery 0
)"}),
    case_name);

// Without RACK: RFC 6675's rule of three.
INSTANTIATE_TEST_SUITE_P(
    Scoreboard, RecoveryScript,
    testing::Values(Case{"ThreeSegmentsAbove", kSack, "tcp_recovery=0", R"(
  write 10
  > 0-9
  +10 < 0 sack 1-2
  +50 >
  < 0 sack 1-3
  > 0
  ? state recovery
)"},
                    Case{"NoTimeMakesALoss", kSack, "tcp_recovery=0 tcp_early_retrans=0", R"(
  write 10
  > 0-9
  +10 < 0 sack 9
  +150 >
  ? state disorder
)"},
                    Case{"EachHoleNeedsThreeAbove", kSack, "tcp_recovery=0", R"(
  write 10
  > 0-9
  +10 < 0 sack 1-2 4
  > 0
  < 0 sack 1-2 4-6
  > 3
)"},
                    Case{"LostRetransmission", kSack, "tcp_recovery=0", R"(
  write 10
  > 0-9
  +10 < 0 sack 1-3
  > 0
  +5 < 0 sack 1-9
  write 10
  > 10-13
  +10 < 0 sack 1-10
  > 0 14
  ? TCPLostRetransmit 1
)"},
                    Case{"TheThresholdIsASetting6675", kSack, "tcp_recovery=0 tcp_reordering=6", R"(
  write 10
  > 0-9
  +10 < 0 sack 1-5
  >
  < 0 sack 1-6
  > 0
)"}),
    case_name);

// RFC 8985, section 7.
INSTANTIATE_TEST_SUITE_P(LossProbe, RecoveryScript,
                         testing::Values(Case{"NewDataAfterTwoRoundTrips", kSack, "", R"(
  write 20
  > 0-9
  +21.9 >
  +0.2 > 10
  ? TCPLossProbes 1
  ? TCPTimeouts 0
)"},
                                         Case{"OrTheLastSegmentAgain", kSack, "", R"(
  write 3
  > 0-2
  +22.1 > 2
  ? TCPLossProbes 1
  ? in_flight 3
)"},
                                         Case{"OfASuperframeOnlyTheLast", kSuperframes, "", R"(
  write 9
  > 0-8
  +22.1 > 8
)"},
                                         Case{"TheFinIsProbedToo", kSack, "", R"(
  write 3
  > 0-2
  close
  > 3+0F
  +22.1 > 3+0F
)"},
                                         Case{"AloneItWaitsForADelayedAck", kSack, "", R"(
  write 1
  > 0
  +209 >
  +2 > 0
  ? TCPLossProbes 1
  ? TCPTimeouts 0
  +208 >
  +3 > 0                         # and then the time-out
  ? TCPTimeouts 1
)"},
                                         Case{"OnlyOneUntilItIsAnswered", kSack, "", R"(
  write 3
  > 0-2
  +22.1 > 2
  +100 >
  ? TCPLossProbes 1
)"},
                                         Case{"TheTimerStartsAnewWithEachAck", kSack, "", R"(
  write 6
  > 0-5
  +15 < 2
  +20 < 4
  >
  ? TCPLossProbes 0
)"},
                                         Case{"ATailOfTwoIsRepairedWithoutATimeout", kSack, "", R"(
  write 3
  > 0-2
  +10 < 1
  +22.1 > 2
  +10 < 1 sack 2
  > 1
  ? state recovery
  +10 < 3
  ? state open
  ? TCPTimeouts 0
  ? TCPLossProbes 1
)"},
                                         Case{"WhatItRepairsAloneIsCongestion", kSack, "", R"(
  write 1
  > 0
  +210.1 > 0
  +10 < 1
  ? cwnd 10
  write 1
  > 1
  +10 < 2
  ? TCPLossProbeRecovery 1
  ? ssthresh 5
  ? cwnd 5
)"},
                                         Case{"ADsackSaysThatNothingWasLost", kSack, "", R"(
  write 3
  > 0-2
  +22.1 > 2
  < 3
  +10 < 3 dsack 2
  write 1
  > 3
  +10 < 4
  ? TCPLossProbeRecovery 0
  ? TCPDSACKRecv 1
  ? ssthresh infinite
)"},
                                         Case{"ADuplicateAckSaysSoToo", kSack, "", R"(
  write 3
  > 0-2
  +22.1 > 2
  < 3
  write 1
  > 3
  +1 < 3
  +10 < 4
  ? TCPLossProbeRecovery 0
  ? ssthresh infinite
)"},
                                         Case{"NewDataAcknowledgedIsNoCongestion", kSack, "", R"(
  write 20
  > 0-9
  +22.1 > 10
  +10 < 11
  > 11-19
  +10 < 20
  ? TCPLossProbeRecovery 0
  ? ssthresh infinite
)"},
                                         Case{"NotWithoutSack", kNoSack, "", R"(
  write 3
  > 0-2
  +200 >
  ? TCPLossProbes 0
  +11 > 0
)"},
                                         Case{"NotWhenTurnedOff", kSack, "tcp_early_retrans=0", R"(
  write 3
  > 0-2
  +200 >
  +11 > 0
  ? TCPLossProbes 0
  ? TCPTimeouts 1
)"},
                                         Case{"NotInRecovery", kSack, "", R"(
  write 10
  > 0-9
  +10 < 0 sack 1-3
  > 0
  +50 >
  ? TCPLossProbes 0
)"},
                                         Case{"NotInDisorder", kSack, "tcp_reordering=9 tcp_recovery=0", R"(
  write 10
  > 0-9
  +10 < 0 sack 1-3
  +50 >
)"},
                                         Case{"ThePeersWindowIsKept", {.window = 10}, "", R"(
  write 20
  > 0-9
  +22.1 > 9                      # no room for new data
)"}),
                         case_name);

// RFC 6937.
INSTANTIATE_TEST_SUITE_P(RateReduction, RecoveryScript,
                         testing::Values(Case{"HalfOfWhatIsDeliveredIsSent", kSack, "", R"(
  write 20
  > 0-9
  +10 < 0 sack 1-3
  > 0
  ? in_flight 7
  < 0 sack 1-4
  > 10                           # four delivered: two out
  < 0 sack 1-5
  >
  < 0 sack 1-6
  >
  ? in_flight 5                  # that was it; from here on one for one
  < 0 sack 1-7
  > 11
  < 0 sack 1-8
  > 12
  < 0 sack 1-9
  > 13
  ? in_flight 5
)"},
                                         Case{"WithManyLossesItFillsUpToSsthresh", kSack, "", R"(
  write 20
  > 0-9
  +10 < 0 sack 7-9
  > 0-2                          # three delivered: conservation
  ? in_flight 3
  +10 < 1 sack 7-9
  > 3-4                          # nothing more was lost: one more than that
  < 2 sack 7-9
  > 5-6
  ? in_flight 5
  ? TCPFastRetrans 7
)"},
                                         Case{"NothingDeliveredNothingSent", kSack, "", R"(
  write 20
  > 0-9
  +10 < 0 sack 1-3
  > 0
  < 0 sack 1-3
  < 0 sack 1-3
  >
)"},
                                         Case{"EndsAtSsthresh", kSack, "", R"(
  write 40
  > 0-9
  +10 < 0 sack 1-9
  > 0 10-13
  +10 < 1 sack 2-9
  ? state recovery
  < 10
  ? state open
  ? ssthresh 5
  ? cwnd 5
)"},
                                         Case{"ARecoveryThatFollowsHalvesAgain", kSack, "", R"(
  write 40
  > 0-9
  +10 < 0 sack 1-9
  > 0 10-13
  +10 < 14
  > 14-18
  ? cwnd 5
  +10 < 14 sack 15-17
  > 14
  ? ssthresh 2500b
  ? TCPSackRecovery 2
)"}),
                         case_name);

// RFC 6298 with Linux's bounds.
INSTANTIATE_TEST_SUITE_P(
    Timeout, RecoveryScript,
    testing::Values(Case{"DoublesFromTwoHundredMilliseconds", kNoSack, "", R"(
  write 1
  > 0
  ? rto 210
  +209 >
  +2 > 0
  ? rto 420
  +418 >
  +3 > 0
  +840 > 0
  +1680 > 0
  ? TCPTimeouts 4
)"},
                    Case{"IsNeverMoreThanTwoMinutes", kNoSack, "tcp_retries2=30", R"(
  write 1
  +600000 ? rto 120000
)"},
                    Case{"SetsTheLossWindow", kNoSack, "", R"(
  write 10
  > 0-9
  +211 > 0
  ? state loss
  ? cwnd 1
  ? ssthresh 5
  ? lost 10
  ? in_flight 1
)"},
                    Case{"AnotherKeepsSsthresh", kNoSack, "", R"(
  write 10
  > 0-9
  +211 > 0
  +420 > 0
  ? ssthresh 5
  ? TCPTimeouts 2
)"},
                    Case{"SlowStartRepairsTheRest", kNoSack, "tcp_frto=0", R"(
  write 8
  > 0-7
  +211 > 0
  +10 < 1
  > 1-2
  +10 < 3
  ? state loss
  > 3-5
  +10 < 8
  ? state open
)"},
                    Case{"SackedIsNotSentAgain", kSack,
                         "tcp_frto=0 tcp_early_retrans=0 tcp_reordering=9 tcp_recovery=0", R"(
  write 8
  > 0-7
  +10 < 0 sack 2-6
  +211 > 0
  +10 < 1 sack 2-6
  > 1 7
  ? TCPSackFailures 1
  +10 < 8
  ? state open
)"},
                    Case{"WhatWasSentJustNowIsNotLostByIt", kSack, "tcp_early_retrans=0", R"(
  write 1
  > 0
  +10 < 1
  write 1
  > 1
  +205 write 1
  > 2
  +5.5 > 1
  ? lost 1
  ? in_flight 2
)"},
                    Case{"InRecoveryIsCountedAsItsFailure", kSack, "", R"(
  write 10
  > 0-9
  +10 < 0 sack 1-3
  > 0
  +211 > 0
  ? TCPSackRecoveryFail 1
  ? TCPLostRetransmit 1
  ? ssthresh 5                   # not halved again in the same window
)"},
                    Case{"EachRoundTripIsMeasured", kNoSack, "", R"(
  write 2
  > 0-1
  +20 < 2
  ? rto 211                      # 200 ms above the smoothed time
  write 2
  > 2-3
  +90 < 4
  ? rto 221
  write 2
  > 4-5
  +90 < 6
  ? rto 229
)"},
                    Case{"KarnTakesNoSample", kNoSack, "", R"(
  write 1
  > 0
  +211 > 0
  +100 < 1
  ? rto 420
  write 1
  > 1
  +10 < 2
  ? rto 210
)"},
                    Case{"NotByTheEchoOfWhatAcknowledgesNothing", kTimestamps, "", R"(
  write 3
  > 0-2
  +22.1 > 2                      # the probe: no segment is unambiguous
  +150 < 0 sack 2 ecr 0          # RFC 7323, 4.1: SND.UNA stays
  ? sacked 1
  ? rto 210
)"},
                    Case{"TimestampsGiveOne", kTimestampsOnly, "", R"(
  write 1
  > 0
  +211 > 0
  +10 < 1
  ? rto 210
)"},
                    Case{"TheHeadsAckRestartsTheTimer", kNoSack, "", R"(
  write 2
  > 0-1
  +200 < 1
  +150 >
  ? TCPTimeouts 0
)"},
                    Case{"SacksOfOlderDataDoToo", kSack, "tcp_early_retrans=0", R"(
  write 10
  > 0-9
  +10 < 0 sack 1-3
  > 0
  +1 < 0 sack 1-4                # sent before 0 was sent again
  +205 >
  +6 > 0
)"}),
    case_name);

// RFC 5682.
INSTANTIATE_TEST_SUITE_P(Frto, RecoveryScript,
                         testing::Values(Case{"ADelaySpikeIsSpurious", kSack, "tcp_early_retrans=0", R"(
  write 30
  > 0-9
  +211 > 0
  ? state loss
  +5 < 1
  > 10-11                        # step 2.b: new data
  ? state loss
  +1 < 2                         # step 3.b: 1 was never sent again
  ? state open
  ? TCPSpuriousRTOs 1
  ? TCPLossUndo 1
  ? ssthresh infinite
  ? cwnd 11
  > 12                           # all the others are in flight
)"},
                                         Case{"WithoutSackToo", kNoSack, "", R"(
  write 30
  > 0-9
  +211 > 0
  +5 < 1
  > 10-11
  +1 < 2
  ? state open
  ? TCPSpuriousRTOs 1
)"},
                                         Case{"AnAckOfSeveralTellsAtOnce", kNoSack, "", R"(
  write 30
  > 0-9
  +211 > 0
  +5 < 4
  ? TCPSpuriousRTOs 1
  ? state open
)"},
                                         Case{"TheRtoIsRestored", kNoSack, "", R"(
  write 30
  > 0-9
  +211 > 0
  ? rto 420
  +5 < 4
  ? TCPSpuriousRTOs 1
  ? rto 210
  +1 < 6
  ? TCPTimeouts 1
)"},
                                         Case{"ADuplicateAckMakesTheLossReal", kNoSack, "", R"(
  write 30
  > 0-9
  +211 > 0
  +5 < 1
  > 10-11
  +10 < 1
  > 1
  ? TCPSpuriousRTOs 0
  ? state loss
)"},
                                         Case{"ASackOfTheNewDataToo", kSack, "tcp_early_retrans=0", R"(
  write 30
  > 0-9
  +211 > 0
  +5 < 1
  > 10-11
  +10 < 1 sack 10
  > 1
  ? TCPSpuriousRTOs 0
)"},
                                         Case{"WithoutNewDataItIsRepairedAsUsual", kNoSack, "", R"(
  write 10
  > 0-9
  +211 > 0
  +5 < 1
  > 1-2
  ? state loss
)"},
                                         Case{"WithoutARoomyWindowToo", {.sack = false, .window = 10}, "", R"(
  write 30
  > 0-9
  +211 > 0
  +5 < 1 win 9
  > 1-2
)"},
                                         Case{"NotWhenTurnedOff", kNoSack, "tcp_frto=0", R"(
  write 30
  > 0-9
  +211 > 0
  +5 < 1
  > 1-2
)"},
                                         Case{"NotAfterFastRecovery", kSack, "", R"(
  write 30
  > 0-9
  +10 < 0 sack 1-3
  > 0
  +211 > 0
  +5 < 1 sack 1-3
  ? TCPSpuriousRTOs 0
)"}),
                         case_name);

// RFC 3522, 3708, 4015.
INSTANTIATE_TEST_SUITE_P(
    Undo, RecoveryScript,
    testing::Values(Case{"ByTimestampsInFull", kTimestamps, "", R"(
  write 10
  > 0-9
  +10 < 0 sack 1-3 ecr 0
  > 0
  ? cwnd 7500b
  +3 < 10 ecr 0                  # the original
  ? state open
  ? TCPFullUndo 1
  ? cwnd 10
  ? ssthresh infinite
)"},
                    Case{"NotWhenItIsTheRetransmissions", kTimestamps, "", R"(
  write 10
  > 0-9
  +10 < 0 sack 1-3 ecr 0
  > 0
  +10 < 10 ecr 10
  ? TCPFullUndo 0
  ? cwnd 5
)"},
                    Case{"ByTimestampsInPart", kTimestamps, "", R"(
  write 20
  > 0-9
  +10 < 0 sack 2-8 ecr 0
  > 0-1 10-11
  ? state recovery
  +2 < 1 sack 2-8 ecr 0
  ? TCPTSReorder 1
  ? TCPPartialUndo 0             # a retransmission is still out
  +1 < 9 ecr 0
  ? TCPPartialUndo 1
  ? state open
  ? ssthresh infinite
)"},
                    Case{"ByDsackAfterwards", kSack, "", R"(
  write 10
  > 0-9
  +10 < 0 sack 1-3
  > 0
  +1 < 10
  ? state open
  ? cwnd 5
  +9 < 10 dsack 0
  ? TCPDSACKUndo 1
  ? TCPDSACKRecv 1
  ? cwnd 10
  ? ssthresh infinite
)"},
                    Case{"ByDsackInRecovery", kSack, "", R"(
  write 20
  > 0-9
  +10 < 0 sack 1-3
  > 0
  +1 < 4
  ? state recovery
  +9 < 5 dsack 0
  ? TCPDSACKUndo 1
  ? state open
  ? ssthresh infinite
)"},
                    Case{"AllRetransmissionsMustBeDuplicates", kSack, "", R"(
  write 10
  > 0-9
  +10 < 0 sack 2-9
  > 0-1
  +5 < 10
  +5 < 10 dsack 0
  ? TCPDSACKUndo 0
  ? cwnd 5
  < 10 dsack 1
  ? TCPDSACKUndo 1
  ? cwnd 10
)"},
                    Case{"ByDsackOfWhatIsNotAcknowledgedYet", kSack, "", R"(
  write 20
  > 0-9
  +10 < 0 sack 2 4-6
  > 0-1
  < 0 sack 2 4-7
  > 3
  +5 < 0 dsack 3 sack 2-7
  ? TCPDSACKOfoRecv 1
  ? TCPDSACKUndo 0
)"},
                    Case{"OfATimeoutByTimestamps", kTimestamps, "tcp_early_retrans=0", R"(
  write 20
  > 0-9
  +215 > 0
  ? cwnd 1
  +5 < 1 ecr 0
  ? state open
  ? TCPLossUndo 1
  ? TCPSpuriousRTOs 0
  ? ssthresh infinite
  > 10-11
)"},
                    Case{"OfATimeoutByDsack", kSack, "tcp_early_retrans=0 tcp_frto=0", R"(
  write 2
  > 0-1
  +211 > 0
  +5 < 2
  ? state open
  +5 < 2 dsack 0
  ? TCPDSACKUndo 1
  ? ssthresh infinite
  ? cwnd 10
)"},
                    Case{"ADsackOfWhatWasNeverSentAgainIsTheNetworks", kSack, "", R"(
  write 10
  > 0-9
  +10 < 10
  < 10 dsack 3
  ? TCPDSACKIgnoredDubious 1
  ? TCPDSACKUndo 0
  ? cwnd 20
)"},
                    Case{"AnAbsurdDsackIsIgnored", {.window = 10}, "", R"(
  write 10
  > 0-9
  +10 < 0 sack 1-3
  > 0
  +1 < 10 dsack 0-60
  ? TCPDSACKUndo 0
)"},
                    Case{"DsacksWidenTheReorderingWindow", kSack, "", R"(
  write 10
  > 0-9
  +10 < 0 sack 1
  +1 < 10                        # it reorders
  write 10
  > 10-19
  +10 < 10 sack 11-14
  +3.6 > 10
  +1 < 20
  +9 < 20 dsack 10               # needless: half a round trip from now on
  ? TCPDSACKUndo 1
  write 10
  > 20-29
  +10 < 20 sack 21-24
  +3.6 >
  +2.5 > 20
)"},
                    Case{"UnlessItIsStatic", kSack, "tcp_recovery=3", R"(
  write 10
  > 0-9
  +10 < 0 sack 1
  +1 < 10
  write 10
  > 10-19
  +10 < 10 sack 11-14
  +3.6 > 10
  +1 < 20
  +9 < 20 dsack 10
  write 10
  > 20-29
  +10 < 20 sack 21-24
  +3.6 > 20
)"}),
    case_name);

// RFC 6582, 3042: a peer without SACK.
INSTANTIATE_TEST_SUITE_P(
    NewReno, RecoveryScript,
    testing::Values(Case{"ThreeDuplicates", kNoSack, "", R"(
  write 10
  > 0-9
  +10 < 0
  < 0
  >
  < 0
  > 0
  ? state recovery
  ? ssthresh 5
  ? TCPRenoRecovery 1
  +10 < 10
  ? state open
  ? cwnd 5
)"},
                    Case{"LimitedTransmit", kNoSack, "", R"(
  write 20
  > 0-9
  +10 < 0
  > 10
  < 0
  > 11
  < 0
  > 0
)"},
                    Case{"WithSackOnlyNewsTransmit", kSack, "", R"(
  write 20
  > 0-9
  +10 < 0 sack 1
  > 10
  < 0 sack 1                     # RFC 5681, 3.2: "MUST NOT send new data unless" it brings new SACKs
  < 0 sack 1
  < 0
  >
)"},
                    Case{"LimitedTransmitStaysInTheWindow", {.sack = false, .window = 11}, "", R"(
  write 20
  > 0-9
  +10 < 0 win 11
  > 10
  < 0 win 11
  >                              # RFC 3042, 2: the window must allow it
)"},
                    Case{"LimitedTransmitWithSack", kSack, "", R"(
  write 20
  > 0-9
  +10 < 0 sack 1
  > 10
  < 0 sack 1-2
  > 11
)"},
                    Case{"APartialAckRepairsTheNextHole", kNoSack, "", R"(
  write 10
  > 0-9
  +10 < 0
  < 0
  < 0
  > 0
  +10 < 4
  > 4
  +10 < 7
  > 7
  +10 < 10
  ? state open
  ? TCPTimeouts 0
)"},
                    Case{"DuplicatesInRecoveryClockOutNewData", kNoSack, "", R"(
  write 20
  > 0-9
  +10 < 0
  > 10
  < 0
  > 11
  < 0
  > 0
  < 0
  < 0
  >
  < 0
  > 12                           # half of what is delivered
)"},
                    Case{"DuplicatesOfRetransmissionsStartNothing", kNoSack, "tcp_frto=0", R"(
  write 10
  > 0-9
  +211 > 0
  +10 < 10
  write 4
  > 10-13
  +1 < 10
  < 10
  < 10
  >
  ? TCPRenoRecovery 0
)"},
                    Case{"WindowUpdatesAreNoDuplicates", kNoSack, "", R"(
  write 10
  > 0-9
  +10 < 0 win 60
  < 0 win 61
  < 0 win 62
  < 0 win 63
  >
)"},
                    Case{"SegmentsWithDataAreNoDuplicates", kNoSack, "", R"(
  write 10
  > 0-9
  +10 < 0 data 10
  < 0 data 10
  < 0 data 10
  < 0 data 10
  >
)"},
                    Case{"MoreDuplicatesThanSegmentsAreReordering", kNoSack, "tcp_reordering=9", R"(
  write 4
  > 0-3
  +10 < 0
  < 0
  < 0
  < 0
  ? TCPRenoReorder 1
  >
)"},
                    Case{"SmallSegmentsCountAsSegments", kNoSack, "", R"(
  nodelay
  write 100b
  write 100b
  write 100b
  write 100b
  > 0+100 100b+100 200b+100 300b+100
  +10 < 0
  < 0
  < 0
  > 0+100
)"},
                    Case{"EifelUndoesItToo", kTimestampsOnly, "", R"(
  write 10
  > 0-9
  +10 < 0 ecr 0
  < 0 ecr 0
  < 0 ecr 0
  > 0
  +2 < 10 ecr 0
  ? TCPFullUndo 1
  ? ssthresh infinite
)"}),
    case_name);

// RFC 2018, section 8; and what no honest peer sends.
INSTANTIATE_TEST_SUITE_P(Sacks, RecoveryScript,
                         testing::Values(Case{"RenegingIsFoundByASoonTimeout", kSack, "", R"(
  write 10
  > 0-9
  +10 < 0 sack 1-4
  > 0
  +10 < 1                        # 1 to 4 should have gone with it
  +9 >
  +2 > 1
  ? TCPSACKReneging 1
  ? sacked 0
  ? state loss
)"},
                                         Case{"TheRestOfAReneguedWindowIsSentAgain", kSack, "tcp_frto=0", R"(
  write 5
  > 0-4
  +10 < 0 sack 1-4
  > 0
  +10 < 1
  +11 > 1
  +10 < 2
  > 2-3
  +10 < 4
  > 4
  +10 < 5
  ? state open
)"},
                                         Case{"AnHonestAckRightAfterIsTaken", kSack, "", R"(
  write 10
  > 0-9
  +10 < 0 sack 1-4
  > 0
  +10 < 1
  +2 < 10
  ? state open
  +300 >
  ? TCPSACKReneging 0
)"},
                                         Case{"BeyondWhatWasSentIsDiscarded", kSack, "", R"(
  write 5
  > 0-4
  +10 < 0 sack 7-9
  ? sacked 0
  ? TCPSACKDiscard 1
)"},
                                         Case{"BackwardsIsDiscarded", kSack, "", R"(
  write 5
  > 0-4
  +10 < 0 sack 4000b-2000b
  ? sacked 0
  ? TCPSACKDiscard 1
)"},
                                         Case{"BelowTheAckIsADsack", kSack, "", R"(
  write 5
  > 0-4
  +10 < 3 sack 0-1
  ? sacked 0
  ? TCPDSACKRecv 1
)"},
                                         Case{"TheSameAgainBringsNothing", kSack, "", R"(
  write 10
  > 0-9
  +1 < 0 sack 8
  < 0 sack 8
  < 0 sack 8
  < 0 sack 8
  >
  ? sacked 1
)"},
                                         Case{"FourBlocksAtOnce", kSack, "", R"(
  write 10
  > 0-9
  +1 < 0 sack 2 4 6 8
  ? sacked 4
)"},
                                         Case{"OverlappingBlocksCountOnce", kSack, "", R"(
  write 10
  > 0-9
  +1 < 0 sack 2-5 4-8
  ? sacked 7
)"},
                                         Case{"ThatJoinedIsOne", kSack, "", R"(
  write 10
  > 0-9
  +1 < 0 sack 2 4
  < 0 sack 2-4
  ? sacked 3
)"},
                                         Case{"WithoutThePermissionTheyAreNotLookedAt", kNoSack, "", R"(
  write 10
  > 0-9
  +10 < 0 sack 1-9
  ? sacked 0
  >
)"}),
                         case_name);

}  // namespace
}  // namespace ustack::test
