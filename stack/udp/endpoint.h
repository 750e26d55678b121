// A UDP socket.
#pragma once

#include <cstdint>

#include "stack/net/route.h"
#include "stack/socket/datagram_socket.h"
#include "stack/socket/option_values.h"
#include "stack/tcp/plain_options.h"
#include "stack/tcp/reports.h"
#include "stack/tcp/socket_options.h"
#include "stack/udp/protocol.h"

namespace ustack::udp {

/// Lock: the host's. Behaves as udp(7) and Linux's net/ipv4/udp.c and net/ipv6/udp.c. One of IPv6 carries
/// IPv4 too, unless it has IPV6_V6ONLY.
class Endpoint final : public DatagramSocket, public ListHook<OfPort> {
 public:
  Endpoint(Protocol& protocol, Family family);
  ~Endpoint();
  /// For its slab.
  void retire();

  int protocol() const override;
  Status bind(const SocketAddress& local) override;
  Status connect(const SocketAddress& remote) override;
  Status shutdown(ShutdownHow how) override;
  void release() override;
  uint32_t readiness() const override;
  Result<SocketAddress> local_address() const override { return local_; }
  Result<SocketAddress> remote_address() const override;
  Status set_option(int level, int name, Bytes value) override;
  Result<size_t> get_option(int level, int name, MutableBytes out) override;
  Result<int> ioctl_value(unsigned long request) override;
  Duration receive_timeout() const override { return receive_timeout_; }
  Duration send_timeout() const override { return send_timeout_; }
  bool failed() const override { return error_ != 0; }
  std::optional<Report> take_report() override;
  TimeStamping time_stamping() const override { return times_; }

  Result<TxFrame*> reserve(size_t bytes) override;
  Status send(TxFrame* frame, const DatagramOut& how) override;
  void abandon(TxFrame* frame) override;
  Result<Datagram*> take(bool peek) override;
  void done(Datagram* datagram) override;
  DatagramWishes wishes() const override;

 private:
  friend class Protocol;

  bool connected() const { return remote_.port != 0 || !remote_.address.is_unspecified(); }
  /// Datagrams of that family may be its.
  bool takes(Family family) const {
    return local_.address.is_v4() ? family == Family::ipv4 : family == Family::ipv6 || !ipv6_.v6_only;
  }
  PmtuDiscovery pmtu_discovery(const IpAddress& address) const {
    return address.is_v6() ? ipv6_.pmtu_discovery : pmtu_discovery_;
  }
  bool receives_errors(const IpAddress& address) const {
    return address.is_v6() ? ipv6_.receive_errors : receive_errors_;
  }
  /// The address that it sends from; unspecified: the route's. One that is bound to a broadcast address only
  /// receives by that (inet_bind).
  IpAddress source() const;
  Result<Route> route_to(const IpAddress& from, const IpAddress& to);
  void write_header(TxFrame& frame, const Route& route, uint16_t to);
  /// `bytes`: of the datagram with its header.
  IpOptionsOut ip_options(const DatagramOut& how, uint32_t bytes, const Route& route) const;
  IpOptionsOut ipv6_options(const DatagramOut& how, uint16_t to, const Route& route) const;
  void receive(const Datagram& what);
  void on_error(int error, bool fatal, const IcmpError& icmp);
  void report_icmp(int error, const IcmpError& icmp);
  void report_too_long(const SocketAddress& to, uint32_t mtu);
  void push(Report&& report);
  void dissolve();
  void wake(uint32_t events) { waiters.notify(events); }
  void free(Datagram* datagram);
  bool reaches(bool local) const {
    return device_ == BoundDevice::any || (device_ == BoundDevice::loopback) == local;
  }
  Status set_number(int level, int name, int value, size_t bytes);
  Status set_ipv6_number(int name, int value);
  Result<int> number(int level, int name);
  Result<int> ipv6_number(int name);
  Result<int> path_mtu();
  Status set_time_stamping(uint32_t flags, bool new_format);

  Protocol& protocol_;
  const Family family_;
  /// Where it is bound to no address: the wildcard of its family, or of IPv4 if it is bound to that.
  IpAddress any_;
  SocketAddress local_, remote_;
  /// bind(2) has chosen them, and connect(2) doesn't change them.
  bool address_bound_ = false, port_bound_ = false;
  bool read_shut_ = false, write_shut_ = false;
  bool reuse_address_ = false, reuse_port_ = false, broadcast_ = false, receive_errors_ = false;
  bool no_checksum_ = false, keepalive_ = false, dont_route_ = false, out_of_band_inline_ = false;
  bool receive_limit_locked_ = false, send_limit_locked_ = false;
  BoundDevice device_ = BoundDevice::any;
  PmtuDiscovery pmtu_discovery_ = PmtuDiscovery::want;
  uint8_t tos_ = 0;
  int16_t ttl_ = -1;
  int error_ = 0;
  uint32_t receive_limit_, send_limit_;
  /// SO_RCVLOWAT, which means nothing to datagrams.
  int low_water_ = 1;
  Duration receive_timeout_{}, send_timeout_{};
  int linger_seconds_ = 0;
  bool linger_ = false;
  TimeStamping times_;
  tcp::PlainOptions plain_;
  tcp::Ipv6Options ipv6_;
  /// IPV6_DONTFRAG.
  bool dont_fragment_ = false;
  /// IPV6_MTU: of packets that are cut; 0: the path's.
  uint32_t fragment_mtu_ = 0;
  uint64_t cookie_ = 0;

  IntrusiveList<Datagram> queue_;
  /// Being copied by somebody, and not in the queue any more. Those of a process that was killed meanwhile
  /// stay until the socket is closed.
  IntrusiveList<Datagram> taken_;
  /// What waits in the queue, by true size in bytes.
  uint32_t queue_bytes_ = 0;
  /// Being filled by somebody; as above.
  FrameQueue filling_;
  tcp::Reports* reports_ = nullptr;
};

}  // namespace ustack::udp
