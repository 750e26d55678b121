// A TCP socket: the imperative shell around the Tcb.
//
//   connect() --> fiber: Handshake::execute() --> main_loop() --> closed
//   SYN       --> fiber: Handshake::execute() --> accept queue, main_loop() --> closed
//
// What comes from the network or from timers is handled on the endpoint's fiber: main_loop() waits for wakers
// and takes at most kMaxSegmentsPerWake segments a turn. The main loop keeps nothing in locals over an idle
// wait, so an idle connection has no fiber. What the program does (send, read, shutdown, close) is done
// directly in the caller, which saves a switch: the main loop never stops in the middle of something, so the
// two can't meet. Only a handshake does; it is told by notifications.
//
// A connection on which nothing happens needs little of all that: where there are many, it is put to rest
// (endpoint_rest.cpp).
#pragma once

#include <cstdint>
#include <optional>

#include "stack/net/ipv4.h"
#include "stack/net/ipv6.h"
#include "stack/socket/socket.h"
#include "stack/tcp/awake.h"
#include "stack/tcp/demux.h"
#include "stack/tcp/output.h"
#include "stack/tcp/protocol.h"
#include "stack/tcp/reports.h"
#include "stack/tcp/segment_arrives.h"
#include "stack/time/timer.h"

namespace ustack::tcp {

/// Lock: the host's. Lives in Protocol's slab; frees itself when it was released and the protocol has ended.
class Endpoint final : public Socket, public Connection, public ListHook<ListenerTag> {
 public:
  using State = tcp::State;

  /// Segments that are handled in one turn of the main loop.
  static constexpr int kMaxSegmentsPerWake = 100;
  /// What a notification says (the seed's notifyClose, notifyDrain).
  static constexpr uint32_t kNotifyClose = 1;  ///< end a handshake that is under way
  static constexpr uint32_t kNotifyDrain = 2;  ///< handle what is queued, then pause until undrain()
  static constexpr uint32_t kNotifyError = 4;  ///< a hard ICMP error came during the handshake

  /// Without memory it isn't awake(), and can only be destroyed.
  Endpoint(Protocol& protocol, Family family);
  ~Endpoint() override;

  // --- Socket ---
  int protocol() const override { return kProtocolNumber; }
  Status bind(const SocketAddress& local) override;
  Status connect(const SocketAddress& remote) override;
  Status connect_with_data(const SocketAddress& remote) override;
  Status connect_result() override;
  Status listen(int backlog) override;
  Socket* to_connect(const SocketAddress& remote, bool elsewhere) override;
  Result<Socket*> accept() override;
  Result<Socket*> accept_in_shard(uint8_t shard) override;
  Status shutdown(ShutdownHow how) override;
  void release() override;
  bool lingering_done() const override;
  Result<Extents> reserve_send(size_t want) override;
  void commit_send(size_t n, SendFlags flags) override;
  Result<size_t> lend_send(Bytes from, SendFlags flags, uint64_t lender) override;
  void settle_loans() override;
  Result<Extents> view_receive(size_t want, size_t offset) override;
  void consume(size_t n) override;
  Result<std::byte> receive_urgent(bool peek) override;
  uint32_t readiness() const override;
  Result<SocketAddress> local_address() const override;
  Result<SocketAddress> remote_address() const override;
  Status set_option(int level, int name, Bytes value) override;
  Result<size_t> get_option(int level, int name, MutableBytes out) override;
  Result<int> ioctl_value(unsigned long request) override;
  // What has other answers than these doesn't rest.
  uint32_t receive_low_water() const override { return awake() ? awake_->tcb.rcv.low_water : 1; }
  Duration receive_timeout() const override {
    return awake() ? awake_->options.receive_timeout : Duration(0);
  }
  Duration send_timeout() const override { return awake() ? awake_->options.send_timeout : Duration(0); }
  bool tells_unread() const override { return awake() && awake_->options.plain.tells_unread(); }
  int peek_offset() const override { return awake() ? awake_->options.plain.peek_offset : -1; }
  TimeStamping time_stamping() const override { return awake() ? awake_->options.times : TimeStamping{}; }
  void set_peek_offset(int offset) override {
    if (ensure_awake()) awake_->options.plain.peek_offset = offset;
  }
  bool failed() const override { return error_ != 0; }
  std::optional<Report> take_report() override;
  std::optional<Instant> arrived_at(size_t offset) const override;
  void sent_message(std::optional<uint32_t> stamps, Copying how) override;

  // --- for Protocol ---
  /// A segment came for it. Takes it over; drops it when the queue is full.
  void enqueue(Segment* segment);
  /// A validated ICMP error came: `error` is its errno, `hard` as Linux's icmp_err_convert says.
  void on_icmp_error(int error, SeqNum seq, const IcmpError& icmp);
  /// "Fragmentation needed": the path's MTU may be less than we thought.
  void on_path_mtu(uint32_t mtu);
  /// The host is being taken down: lets go of the fiber.
  void on_host_ending();
  /// Takes it out of everything through which it is reached (see Slab); only destruction can follow.
  void retire();
  /// After a process was killed while it changed the host. `changing`: this endpoint, outside of its fiber.
  /// What was in the middle of a change is reset. Returns whether the endpoint may go now (try_free).
  bool mend(bool changing);

  // --- for the handshake, listeners and tests ---
  Protocol& tcp() { return protocol_; }
  /// Nothing of it is at rest: what follows can be asked for.
  bool awake() const { return awake_ != nullptr; }
  Tcb& tcb() { return awake_->tcb; }
  const Tcb& tcb() const { return awake_->tcb; }
  Route& route() { return awake_->route; }
  SocketOptions& options() { return awake_->options; }
  Listener* listener() { return awake_->listener; }
  /// It is a listener's in another shard.
  bool is_sibling() const;
  /// These always. The listener in whose queue it is, until it is accepted:
  Endpoint* parent() { return awake_ != nullptr ? awake_->parent : nullptr; }
  State tcp_state() const { return awake_ != nullptr ? awake_->tcb.state : State::established; }
  /// The socket's: one of IPv6 carries IPv4 too, unless it has IPV6_V6ONLY.
  Family family() const { return family_; }
  /// The connection's.
  bool over_ipv6() const { return id_.local.address.is_v6(); }
  /// Bound to ::, it is reached over IPv4 as well.
  bool takes_ipv4_on_any() const {
    return family_ == Family::ipv6 && awake_->local.address.is_v6() && !awake_->options.ipv6.v6_only;
  }
  /// What the connection does about the path's MTU, and whether it tells errors at once.
  PmtuDiscovery pmtu_discovery() const {
    return over_ipv6() ? awake_->options.ipv6.pmtu_discovery : awake_->options.pmtu_discovery;
  }
  bool receives_errors() const {
    return over_ipv6() ? awake_->options.ipv6.receive_errors : awake_->options.receive_errors;
  }
  const PortHolder& port() const { return port_; }
  uint32_t accept_queue_length() const;
  uint32_t accept_queue_limit() const;
  /// By a handshake, of one that waits for accept(2).
  Instant established_at() const;
  IpOptionsOut ip_options() const;
  bool released() const { return released_; }
  /// The server has taken the SYN's data (TCPI_OPT_SYN_DATA), or why not.
  bool syn_data_acknowledged() const { return syn_data_acknowledged_; }
  FastOpenFailure fast_open_failure() const { return fast_open_failure_; }
  /// Asks the fiber for something: a set of kNotify bits.
  void notify(uint32_t what);
  /// Asks it to handle what is queued and then to pause: drained() says when. For handing an endpoint over
  /// while nothing moves. undrain() lets it go on.
  void drain() { notify(kNotifyDrain); }
  bool drained() const { return drained_; }
  void undrain();

 private:
  friend struct Awake;
  friend class Handshake;
  friend class Protocol;
  friend struct Listener;
  friend struct OptionTable;
  friend struct OptionRows;
  /// Where connect(2) stands.
  enum class Connecting : uint8_t { idle, under_way, established, connected, failed };
  struct PassiveOpen;
  /// Says for its lifetime that the endpoint is being changed.
  class Change {
   public:
    explicit Change(Endpoint& endpoint) : protocol_(endpoint.protocol_), before_(protocol_.changing) {
      protocol_.changing = &endpoint;
    }
    ~Change() { protocol_.changing = before_; }
    Change(const Change&) = delete;
    Change& operator=(const Change&) = delete;

   private:
    Protocol& protocol_;
    Endpoint* before_;
  };

  // endpoint.cpp: the fiber
  void run();
  void run_handshake();
  void main_loop();
  void park();
  void settle();
  bool handle_segments();
  void handle_segment(Segment& segment);
  bool has_memory();
  void apply(const Verdict& verdict, const Segment& segment, State before);
  bool ack_can_wait(const Verdict& verdict) const;
  void log_verdict(const Verdict& verdict, const Segment& segment) const;
  void on_state_change(State before);
  void update_closing();
  uint32_t fetch_notifications();
  Segment* dequeue();
  void requeue_front(Segment* segment);
  void drop_queue();

  // endpoint_timers.cpp
  void sync_timers();
  Instant next_deadline() const;
  static void on_deadline(Timer& timer, void* endpoint, Instant now);
  void on_timer();
  void on_resend();
  void send_loss_probe();
  void on_retransmission_timeout();
  void count_recovery(const RecoveryEvents& events);
  void on_persist();
  void on_keepalive();
  void on_fin_wait();
  bool retransmission_timed_out() const;
  bool probing_timed_out() const;
  uint32_t orphan_retries(bool alive) const;
  Instant heard_at() const;
  void start_keepalive();
  void start_fin_wait(Duration time);
  Duration keepalive_idle() const;
  Duration keepalive_interval() const;
  uint32_t keepalive_count() const;

  // endpoint_output.cpp
  void output();
  SendTimes::What holding_up() const;
  bool transmit(const Transmission& transmission, uint32_t segment_size = 0);
  void send_ack();
  void send_owed_ack();
  void send_challenge_ack();
  void send_probe();
  Status may_queue();
  SeqNum acceptable_seq() const;
  void send_reset();
  void send_reset(SeqNum at);
  void abort_what_is_lost();
  void answer_with_reset(const Segment& segment);
  Status send(TxFrame* frame, SegmentOut& segment, bool with_sacks);
  SendLimits send_limits() const;
  void grow_send_buffer();

  // endpoint_mtu.cpp
  uint32_t path_payload() const;
  void start_mtu_probing();
  bool send_mtu_probe();
  void judge_mtu_probe();
  void suspect_black_hole();

  // endpoint_connect.cpp
  Endpoint* move_to(Protocol& other);
  Status open_active(const SocketAddress& remote, bool with_data);
  bool fast_open_possible() const;
  void handshake_done(Status status, bool passive);
  void reset_tcb();
  void disconnect();

  // endpoint_close.cpp
  void close_send();
  void done(int error);
  void abort(int error);
  void enter_time_wait();
  void orphan();
  /// Destroys *this if nothing holds it any more.
  void try_free();

  // endpoint_reports.cpp
  Reports* make_reports();
  void report(Report&& report);
  void report_icmp(int error, const IcmpError& icmp);
  void report_time(uint32_t kind, SeqNum last);
  void report_times();
  void report_return(uint32_t number, bool copied);
  void report_returns();
  void note_arrival(const Segment& segment);
  Status set_time_stamping(uint32_t flags, bool new_format);
  void update_telling();

  // endpoint_rest.cpp
  /// False: there is no memory for it.
  bool ensure_awake() { return awake_ != nullptr || awaken(); }
  bool awaken();
  void look_whether_it_may_rest(Instant now);
  bool may_rest() const;
  Duration rest_after() const { return std::chrono::milliseconds(protocol_.settings().tcp_rest_ms); }
  bool rest();
  void release_record();

  // mend.cpp
  void show(Census& census);
  bool free_now() const;
  void mend_wakers();
  void break_off();

  // listener.cpp
  bool start_listening(uint32_t backlog);
  template <typename Visit>
  void for_each_sibling(Visit&& visit) const;
  bool open_siblings();
  void be_sibling_of(const Endpoint& eldest);
  void tell_siblings_options();
  void tell_acceptors();
  bool acceptable() const;
  bool accept_queue_full() const;
  Endpoint& acceptor(uint8_t preferred);
  Result<Socket*> accept_own();
  void close_listener();
  Endpoint* next_to_accept() const;

  // passive_open.cpp
  void take_options(const Endpoint& from);
  bool handle_listen_segments();
  void handle_listen_segment(Segment* segment);
  void handle_syn(Segment* syn);
  bool adopt(Endpoint& listener, const Segment& segment);
  bool accepts_ecn(const Segment& syn) const;
  bool start_passive(Endpoint& listener, Segment* syn);
  bool judge_fast_open(const Segment& syn, std::optional<FastOpenCookie>& granted);
  void answer_with_cookie(const Segment& syn);
  bool accept_cookie(Segment* ack);
  void leave_early();
  void passive_open_failed(int error);
  void passive_open_done();
  void show_early();

  // endpoint_options.cpp
  Status set_own_option(int level, int name, Bytes value);

  bool handshaking() const { return tcp_state() == State::syn_sent || tcp_state() == State::syn_received; }
  /// The program may queue data: the connection's, or what the SYN (or the answer to one) carries (RFC 7413).
  bool accepts_data() const {
    return may_send(awake_->tcb.state) || fast_open_deferred_ || (early_ && !close_pending_);
  }
  bool can_write() const;
  /// An address of this family is one for this socket.
  bool takes(Family family) const {
    return family == family_ || (family_ == Family::ipv6 && !awake_->options.ipv6.v6_only);
  }
  /// IP's header and TCP's without options, in bytes.
  uint32_t header_bytes() const {
    return (over_ipv6() ? Ipv6Header::kLength : Ipv4Header::kLength) + kMinHeader;
  }
  SeqNum next_to_read() const;
  int take_error();
  void make_tcb();
  void wake(uint32_t events) { waiters.notify(events); }

  Protocol& protocol_;
  /// nullptr: at rest, and the record says what it was.
  Awake* awake_ = nullptr;
  std::byte* record_ = nullptr;
  uint16_t record_bytes_ = 0;
  const Family family_;
  PortHolder port_;
  bool port_chosen_by_user_ = false;

  // Active open.
  Connecting connecting_ = Connecting::idle;
  bool handshake_pending_ = false;
  bool passive_ = false;
  bool peer_ecn_ = false;

  // Fast Open (RFC 7413). Active: it was asked for; the SYN waits for the program's data; how it went.
  bool fast_open_ = false;
  bool fast_open_deferred_ = false;
  bool syn_data_acknowledged_ = false;
  FastOpenFailure fast_open_failure_ = FastOpenFailure::none;
  /// Passive: data flows before the handshake is complete.
  bool early_ = false;
  /// shutdown(2) was called meanwhile.
  bool close_pending_ = false;
  /// By accept(2).
  bool accepted_ = false;

  // Linux's sk_shutdown.
  bool send_shut_ = false;
  bool receive_ended_ = false;
  bool released_ = false;
  /// accept(2) may ask for the peer's address even if the connection is gone already.
  mutable bool just_accepted_ = false;
  bool counted_closing_ = false;
  bool send_contended_ = false;
  /// The program has wanted to send more than there was room for.
  bool send_starved_ = false;
  bool view_contended_ = false;
  bool drained_ = false;
  /// Who is killed now leaves no Tcb (mend.cpp).
  bool tcb_in_making_ = false;

  /// Linux's sk_err.
  int error_ = 0;
  Instant keepalive_deadline_ = kNever;

  /// For all deadlines: the handshake's, the first of the main loop's, or when to look whether it may rest.
  Timer timer_{&Endpoint::on_deadline, this};
};

}  // namespace ustack::tcp
