// Counters, named as in /proc/net/snmp and /proc/net/netstat.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "stack/base/fixed_text.h"

namespace ustack {

// One table: group, name. A counter that Linux has keeps Linux's name and meaning; our own are in group
// Ustack.
// clang-format off
#define USTACK_COUNTERS(X) \
  X(Ip, InReceives) X(Ip, InHdrErrors) X(Ip, InAddrErrors) X(Ip, InUnknownProtos) X(Ip, InDiscards) \
  X(Ip, InDelivers) X(Ip, OutRequests) X(Ip, OutDiscards) X(Ip, OutNoRoutes) X(Ip, ReasmTimeout) \
  X(Ip, ReasmReqds) X(Ip, ReasmOKs) X(Ip, ReasmFails) X(Ip, FragOKs) X(Ip, FragFails) \
  X(Ip, FragCreates) \
  X(Ip6, InReceives) X(Ip6, InHdrErrors) X(Ip6, InAddrErrors) X(Ip6, InUnknownProtos) \
  X(Ip6, InTruncatedPkts) X(Ip6, InDiscards) X(Ip6, InDelivers) X(Ip6, OutRequests) \
  X(Ip6, OutDiscards) X(Ip6, OutNoRoutes) X(Ip6, ReasmTimeout) X(Ip6, ReasmReqds) X(Ip6, ReasmOKs) \
  X(Ip6, ReasmFails) X(Ip6, FragOKs) X(Ip6, FragFails) X(Ip6, FragCreates) X(Ip6, InMcastPkts) \
  X(Ip6, InOctets) X(Ip6, OutOctets) X(Ip6, InNoECTPkts) X(Ip6, InECT1Pkts) X(Ip6, InECT0Pkts) \
  X(Ip6, InCEPkts) \
  X(Icmp, InMsgs) X(Icmp, InErrors) X(Icmp, InCsumErrors) X(Icmp, InDestUnreachs) X(Icmp, InTimeExcds) \
  X(Icmp, InParmProbs) X(Icmp, InSrcQuenchs) X(Icmp, InRedirects) X(Icmp, InEchos) X(Icmp, InEchoReps) \
  X(Icmp, InTimestamps) X(Icmp, OutMsgs) X(Icmp, OutErrors) X(Icmp, OutRateLimitGlobal) \
  X(Icmp, OutRateLimitHost) X(Icmp, OutDestUnreachs) X(Icmp, OutTimeExcds) X(Icmp, OutParmProbs) \
  X(Icmp, OutEchoReps) \
  X(Icmp6, InMsgs) X(Icmp6, InErrors) X(Icmp6, InCsumErrors) X(Icmp6, OutMsgs) X(Icmp6, OutErrors) \
  X(Icmp6, InDestUnreachs) X(Icmp6, InPktTooBigs) X(Icmp6, InTimeExcds) X(Icmp6, InParmProblems) \
  X(Icmp6, InEchos) X(Icmp6, InEchoReplies) X(Icmp6, InGroupMembQueries) X(Icmp6, InRouterAdvertisements) \
  X(Icmp6, InNeighborSolicits) X(Icmp6, InNeighborAdvertisements) X(Icmp6, InRedirects) \
  X(Icmp6, OutDestUnreachs) X(Icmp6, OutTimeExcds) X(Icmp6, OutParmProblems) X(Icmp6, OutEchoReplies) \
  X(Icmp6, OutNeighborSolicits) X(Icmp6, OutNeighborAdvertisements) X(Icmp6, OutMLDv2Reports) \
  X(Tcp, ActiveOpens) X(Tcp, PassiveOpens) X(Tcp, AttemptFails) X(Tcp, EstabResets) X(Tcp, CurrEstab) \
  X(Tcp, InSegs) X(Tcp, OutSegs) X(Tcp, RetransSegs) X(Tcp, InErrs) X(Tcp, OutRsts) \
  X(Tcp, InCsumErrors) \
  X(Udp, InDatagrams) X(Udp, NoPorts) X(Udp, InErrors) X(Udp, OutDatagrams) X(Udp, RcvbufErrors) \
  X(Udp, SndbufErrors) X(Udp, InCsumErrors) \
  X(Udp6, InDatagrams) X(Udp6, NoPorts) X(Udp6, InErrors) X(Udp6, OutDatagrams) X(Udp6, RcvbufErrors) \
  X(Udp6, SndbufErrors) X(Udp6, InCsumErrors) \
  X(TcpExt, SyncookiesSent) X(TcpExt, SyncookiesRecv) X(TcpExt, SyncookiesFailed) \
  X(TcpExt, ListenOverflows) X(TcpExt, ListenDrops) X(TcpExt, TW) X(TcpExt, TWRecycled) \
  X(TcpExt, DelayedACKs) X(TcpExt, DelayedACKLost) X(TcpExt, TCPHPHits) X(TcpExt, TCPPureAcks) \
  X(TcpExt, TCPHPAcks) X(TcpExt, TCPLostRetransmit) X(TcpExt, TCPFastRetrans) \
  X(TcpExt, TCPSlowStartRetrans) X(TcpExt, TCPTimeouts) X(TcpExt, TCPAbortOnData) \
  X(TcpExt, TCPAbortOnClose) X(TcpExt, TCPAbortOnMemory) X(TcpExt, TCPAbortOnTimeout) \
  X(TcpExt, TCPAbortOnLinger) X(TcpExt, TCPAbortFailed) X(TcpExt, TCPRcvCoalesce) \
  X(TcpExt, TCPOFOQueue) X(TcpExt, TCPOFODrop) X(TcpExt, TCPOFOMerge) X(TcpExt, TCPChallengeACK) \
  X(TcpExt, TCPSYNChallenge) X(TcpExt, PAWSEstab) X(TcpExt, TCPRcvCollapsed) X(TcpExt, TCPRcvQDrop) \
  X(TcpExt, TCPBacklogDrop) X(TcpExt, TCPMinTTLDrop) X(TcpExt, TCPFromZeroWindowAdv) X(TcpExt, TCPToZeroWindowAdv) \
  X(TcpExt, TCPWantZeroWindowAdv) X(TcpExt, TCPSynRetrans) X(TcpExt, TCPOrigDataSent) \
  X(TcpExt, TCPKeepAlive) X(TcpExt, TCPReqQFullDrop) X(TcpExt, TCPWinProbe) X(TcpExt, OutOfWindowIcmps) \
  X(TcpExt, TCPMTUPSuccess) X(TcpExt, TCPMTUPFail) X(TcpExt, TCPTimeWaitOverflow) \
  X(TcpExt, OfoPruned) X(TcpExt, TCPReqQFullDoCookies) X(TcpExt, TCPFastOpenActive) \
  X(TcpExt, TCPFastOpenActiveFail) X(TcpExt, TCPFastOpenPassive) X(TcpExt, TCPFastOpenPassiveFail) \
  X(TcpExt, TCPFastOpenListenOverflow) X(TcpExt, TCPFastOpenCookieReqd) X(TcpExt, TCPFastOpenBlackhole) \
  X(TcpExt, TCPFastOpenPassiveAltKey) X(TcpExt, TCPACKSkippedSynRecv) X(TcpExt, TCPACKSkippedPAWS) \
  X(TcpExt, TCPACKSkippedSeq) X(TcpExt, TCPACKSkippedTimeWait) X(TcpExt, TCPACKSkippedChallenge) \
  X(TcpExt, LockDroppedIcmps) X(TcpExt, TCPDSACKOldSent) X(TcpExt, TCPMemoryPressures) X(TcpExt, TCPMemoryPressuresChrono) \
  X(TcpExt, TCPDSACKOfoSent) X(TcpExt, TCPDSACKRecv) X(TcpExt, TCPDSACKOfoRecv) \
  X(TcpExt, TCPDSACKRecvSegs) X(TcpExt, TCPDSACKIgnoredDubious) X(TcpExt, TCPDSACKIgnoredOld) \
  X(TcpExt, TCPDSACKIgnoredNoUndo) X(TcpExt, TCPSACKDiscard) X(TcpExt, TCPSACKReneging) \
  X(TcpExt, TCPSACKReorder) X(TcpExt, TCPRenoReorder) X(TcpExt, TCPTSReorder) \
  X(TcpExt, TCPSackRecovery) X(TcpExt, TCPRenoRecovery) X(TcpExt, TCPSackRecoveryFail) \
  X(TcpExt, TCPRenoRecoveryFail) X(TcpExt, TCPSackFailures) X(TcpExt, TCPRenoFailures) \
  X(TcpExt, TCPLossFailures) X(TcpExt, TCPFullUndo) X(TcpExt, TCPPartialUndo) X(TcpExt, TCPDSACKUndo) \
  X(TcpExt, TCPLossUndo) X(TcpExt, TCPSpuriousRTOs) X(TcpExt, TCPLossProbes) \
  X(TcpExt, TCPLossProbeRecovery) X(TcpExt, TCPDeliveredCE) X(TcpExt, TCPAckCompressed) \
  X(IpExt, InOctets) X(IpExt, OutOctets) X(IpExt, InCsumErrors) X(IpExt, InTruncatedPkts) \
  X(IpExt, InBcastPkts) X(IpExt, InBcastOctets) X(IpExt, InNoECTPkts) X(IpExt, InECT1Pkts) \
  X(IpExt, InECT0Pkts) X(IpExt, InCEPkts) X(IpExt, ReasmOverlaps) \
  X(Ustack, ShardStrays) X(Ustack, ShardStraysDropped) \
  X(Ustack, RxFrames) X(Ustack, TxFrames) X(Ustack, RxMalformed) X(Ustack, RxNotForUs) \
  X(Ustack, RxMartians) X(Ustack, RxNoMemory) X(Ustack, TxNoMemory) X(Ustack, TxQueueDrops) \
  X(Ustack, TxLinkErrors) X(Ustack, ArpRequestsSent) X(Ustack, ArpRepliesSent) X(Ustack, ArpReceived) \
  X(Ustack, ArpConflicts) X(Ustack, ArpQueueDrops) X(Ustack, ArpFailures) X(Ustack, FiberRuns) \
  X(Ustack, TcpResetsSuppressed) X(Ustack, TcpRests) X(Ustack, TcpAwakenings) X(Ustack, MemoryRecovered)
// clang-format on

/// All of a host's counters; plain integers under the host's lock, read racily by observers.
struct Counters {
#define USTACK_COUNTER_FIELD(group, name) uint64_t group##name = 0;
  USTACK_COUNTERS(USTACK_COUNTER_FIELD)
#undef USTACK_COUNTER_FIELD
};

struct CounterDescription {
  FixedText<8> group;
  FixedText<32> name;
  uint64_t Counters::*field;
};

/// The table as data, in its order, for printing and for tests.
inline constexpr auto kCounterTable = std::to_array<CounterDescription>({
#define USTACK_COUNTER_ROW(group, name) {#group, #name, &Counters::group##name},
    USTACK_COUNTERS(USTACK_COUNTER_ROW)
#undef USTACK_COUNTER_ROW
});

/// Adds another shard's.
inline void add(Counters& sum, const Counters& other) {
  for (const CounterDescription& row : kCounterTable) sum.*row.field += other.*row.field;
}

}  // namespace ustack
