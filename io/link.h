// What the host is plugged into: a descriptor that carries one frame a message, and the framing around it.
//
//   link         descriptor               prefix               offload
//   tap:NAME     /dev/net/tun, IFF_TAP    virtio_net_hdr (10)  checksums and TSO both ways
//   tun:NAME     /dev/net/tun, IFF_TUN    virtio_net_hdr (10)  the same, bare IP
//   packet:IF    AF_PACKET, SOCK_RAW       virtio_net_hdr (10)  the same, beside the kernel
//   fd:N[:ip]    a socket of the caller   none                 none        (fd:N,N...: one for each queue)
//
// A TAP, a TUN or a packet link may have several queues (IFF_MULTI_QUEUE, PACKET_FANOUT), a descriptor each:
// the kernel spreads what comes in over them by connection, so that several threads can read and write at the
// same time.
//
// A new kind of link is one function that returns a Link of these parts.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/descriptor.h"
#include "io/open_error.h"
#include "stack/host.h"
#include "stack/net/frame.h"
#include "stack/net/network.h"

namespace ustack::io {

class Capture;

/// An opened link. Lives in the process's private memory: fork copies it with its descriptor, which is then
/// shared like any inherited one; frames are messages, so any process may read and write it. The descriptor
/// is O_NONBLOCK.
class Link {
 public:
  /// A virtio_net_hdr without num_buffers: TUNSETVNETHDRSZ and PACKET_VNET_HDR agree on it, and behind it the
  /// IP header of an Ethernet frame is aligned.
  static constexpr uint32_t kVirtioHeader = 10;
  static constexpr uint32_t kMaxPrefix = 12;
  static constexpr uint32_t kMaxQueues = 8;

  Link() = default;
  Link(Descriptor fd, const LinkInfo& info, uint32_t prefix_length, bool is_socket, std::string_view name);
  Link(Link&&) = default;
  Link& operator=(Link&&) = default;

  /// The descriptor of a queue.
  int fd(uint32_t queue = 0) const { return fds_[queue].get(); }
  /// How many queues there are.
  uint32_t queues() const { return queues_; }
  /// Of all queues.
  std::span<Descriptor> descriptors() { return {fds_.data(), queues_}; }
  /// Takes in one more queue. At most kMaxQueues.
  void add_queue(Descriptor fd) { fds_[queues_++] = std::move(fd); }
  /// Held for as long as the link is used: what it keeps others from taking (packet: the address). Often
  /// none.
  Descriptor& claim() { return claim_; }
  const Descriptor& claim() const { return claim_; }
  const LinkInfo& info() const { return info_; }
  /// mac and mtu are chosen after opening.
  LinkInfo& info() { return info_; }
  /// The device's name, or "fd:N".
  std::string_view name() const { return name_.data(); }
  /// Bytes of the link's own in front of each frame, both ways; 0 or kVirtioHeader.
  uint32_t prefix_length() const { return prefix_length_; }
  /// Written with sendmsg(MSG_NOSIGNAL) instead of writev.
  bool is_socket() const { return is_socket_; }
  /// Gaps in front of what is read into a block (prefix, then frame) so that the IP header is 4-byte aligned.
  uint32_t read_padding() const;
  /// Bytes of a frame that the link can carry at most: a superframe with its headers where there is offload.
  uint32_t max_frame() const;

  /// What the prefix says about a frame of `length` bytes. False: it contradicts the frame (offsets beyond
  /// its end, a segment size of zero, a segmentation that was not asked for); drop the frame. No input is
  /// trusted.
  bool decode(const std::byte* prefix, uint32_t length, Offload* out) const;
  /// Writes the prefix for `frame` right in front of its header (into the room that every TxFrame keeps for
  /// it, without growing the header: a frame may be encoded again when the link was full) and returns prefix
  /// and header together. Empty: the frame has no room left for it, drop it.
  Bytes encode(TxFrame& frame) const;

  /// LinkSpec::steered.
  bool steered = false;
  /// Where frames are recorded as they cross the link; nullptr: nowhere. Not owned; process-private.
  Capture* capture = nullptr;

 private:
  std::array<Descriptor, kMaxQueues> fds_;
  uint32_t queues_ = 1;
  Descriptor claim_;
  LinkInfo info_;
  uint32_t prefix_length_ = 0;
  bool is_socket_ = false;
  std::array<char, 24> name_{};
};

/// Which link to open; text form as in USTACK_LINK.
struct LinkSpec {
  /// automatic: a TAP named ustack%d by the kernel.
  enum class Scheme : uint8_t { automatic, tap, tun, packet, fd };
  Scheme scheme = Scheme::automatic;
  std::string name;
  int fd = -1;
  /// fd: a message is a bare IP packet.
  bool ip = false;
  /// tap, tun, packet: how many queues.
  uint32_t queues = 1;
  /// What comes in is spread over them as steer() will say.
  bool steered = false;
  /// fd: those of the other queues.
  std::vector<int> more_fds{};
};

/// Opens as told by `spec`. On failure `*link` is untouched. `*created`: a device that didn't exist before.
/// `insists`: what another program uses is asked for again for a second, in case that has just ended.
std::optional<OpenError> open_link(const LinkSpec& spec, Link* link, bool* created = nullptr,
                                   bool insists = true);
/// A process without rights (CAP_NET_ADMIN; CAP_NET_RAW for packet) can't open it: all but descriptors, and
/// TAP and TUN devices that were given to a user or a group. Asks the kernel once.
bool needs_rights(const LinkSpec& spec);
/// A TAP or TUN device, made if it doesn't exist (it then goes with its last descriptor). `name` may hold
/// "%d". A busy device is tried again for a second (kBusyPatience; less where `insists` is false and its user
/// has a keeper, yield.h): one that a process with an io_uring had open stays busy for some 10 to 31 ms after
/// that process has ended. `*created`: it didn't exist before. Of a device that was made for several queues
/// (multi_queue) as many are used as asked for.
std::optional<OpenError> open_tun_device(const std::string& name, bool tap, Link* link,
                                         bool* created = nullptr, uint32_t queues = 1, bool insists = true);
/// A packet socket on the interface `name`, which is left as it is. The link's MAC address is the
/// interface's. It receives nothing before start_packet(). EPERM without CAP_NET_RAW; ENODEV; EPROTOTYPE: not
/// Ethernet.
/// `steered`: of several queues the first gets all until steer().
std::optional<OpenError> open_packet(const std::string& name, Link* link, uint32_t queues = 1,
                                     bool steered = false);
/// Begins to receive what is for the addresses of `network`, under the MAC address that stands there. That
/// may be the interface's own; another one is added to what its card takes in, which makes cards that can't
/// filter promiscuous. EADDRINUSE: another program in this network namespace has the first address on this
/// interface.
std::optional<OpenError> start_packet(const NetworkConfig& network, Link* link, bool insists = true);
/// What start_packet() has the sockets receive, anew: `shared_mac` says that network.link.mac is the
/// interface's own. 0 or a negative errno. Allocates nothing.
long filter_packet(const NetworkConfig& network, bool shared_mac, Link& link);
/// A datagram or seqpacket socket of the caller's, duplicated. One frame (`ip`: one bare IP packet) a
/// message.
std::optional<OpenError> open_fd(int fd, bool ip, Link* link);

/// Hands the host's queued frames to the link in order, one system call each, and gives them back to
/// host.frames(). For any thread; the host's lock is held. True: all are gone. False: the link is full; the
/// rest stays queued, wait for POLLOUT. A frame that the link refuses (device down, too long, ...) is dropped
/// and counted as TxLinkErrors.
bool transmit(Host& host, Link& link);
/// Writes one frame to a queue, without the host's lock: the frame is the caller's. The system call's result,
/// for transmitted().
long write_frame(const Link& link, uint32_t queue, TxFrame& frame);
/// Lock: the host's. Counts a frame that write_frame() has failed to send and gives it back to the host.
/// False: the link was full, and the frame is still the caller's.
bool transmitted(Host& host, TxFrame* frame, long result);
/// transmit() but for at most `limit` frames; more may be queued afterwards even if the link had room.
bool transmit(Host& host, Link& link, uint32_t limit);

}  // namespace ustack::io
