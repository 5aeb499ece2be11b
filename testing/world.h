// World: the one thread of a FakeServer: its clock, its member, and all clients connected to it.
//
// The clock stands, unless somebody moves it. What needs no time (a request and its answer, an
// event on a watch) happens at once; timers wait for Advance. Time goes from one deadline to the
// next, never past one, and what is due happens before it goes on; callbacks of the clients that
// are queued run in between too, so that a test sees the same order on every machine.
//
// Threads: public methods are called from any thread, unless they are said to be the world's.
// It lives as long as the server or a client of it does.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "conclave/base/time.h"
#include "conclave/server/node/io.h"
#include "conclave/testing/member.h"

namespace conclave::testing {

class ClientLoop;

// What shall happen to a call on its way.
struct Fault {
  enum class Kind : uint8_t {
    kFail,        // the server answers with `status` and does nothing
    kDrop,        // the request gets lost with the connection
    kLoseAnswer,  // the request is carried out, and the answer gets lost with the connection
  };
  Kind kind = Kind::kFail;
  std::string method{};  // "Put"
  absl::Status status{};
  int passing = 0;  // so many calls of the method go by first
};

class World {
 public:
  using Work = absl::AnyInvocable<void()>;
  using TimerId = std::pair<Instant, uint64_t>;
  // Where the clock begins: far from zero, so that "ago" can be said.
  static constexpr Instant kBeginning = Instant(std::chrono::hours(1));

  World(const Member::Settings& settings, bool auto_advance);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  Instant now() const { return Instant(Duration(now_.load(std::memory_order_acquire))); }
  bool OnThisThread() const { return std::this_thread::get_id() == thread_.get_id(); }

  // Runs `work` on the world's thread, in order.
  void Post(Work work);
  // The same, and waits for it. At once on the world's own thread.
  void RunAndWait(absl::FunctionRef<void()> work);

  // Moves the clock by `duration`, and returns when all that was due has happened.
  void Advance(Duration duration);
  // Moves the clock to the next deadline, at most to `limit`; false: that is where it stands now.
  bool Step(Instant limit);

  // From client threads, or the world's: a call that its caller waits for begins; has its result.
  // Destructors' calls let the clock run, for nobody else would get to it.
  void WaitBegins(bool last_word);
  void WaitEnds(bool last_word, bool give_way);
  // There is something to do.
  void Ring();

  // The server goes for good; from now on the clock runs whenever somebody waits, so that whatever
  // clients still want fails at its deadline.
  void Abandon();

  // ---- On the world's thread.

  Member& member() { return member_; }
  // Its process dies. Whoever talks to it hears of that.
  void KillMember();
  TimerId At(Instant when, Work work);
  void CancelTimer(TimerId& timer);

  void Join(ClientLoop* loop);
  void Leave(ClientLoop* loop);
  const std::vector<ClientLoop*>& loops() const { return loops_; }

  // A call or stream of `loop` towards the member; what comes back goes to its OnReply, OnStream.
  node::CallId Open(ClientLoop* loop, uint64_t wire_id);

  void PauseMember();
  void ResumeMember();
  bool paused() const { return paused_; }
  void AddFault(Fault fault) { faults_.push_back(std::move(fault)); }
  void ForgetFaults() { faults_.clear(); }
  // Takes the first fault of one of these kinds for this method off the list. "Put".
  bool TakeFault(std::string_view method, bool answer, Fault* fault);

  // Renewals of this lease do not reach the server any more.
  void Mute(int64_t lease) { muted_.push_back(lease); }
  bool Muted(int64_t lease) const;

 private:
  struct Request {
    Instant target;
    bool one_step = false;
    bool moved = false;
    bool done = false;  // guarded by mutex_
    bool reached = false;
  };
  struct Peer {
    ClientLoop* loop = nullptr;
    uint64_t wire_id = 0;
  };

  void Run();
  void Await(Request& request);
  // Everything that can happen at this instant. True if anything did.
  bool Settle();
  // Waits until callbacks that are queued have run, or cannot end before time moves. False: there
  // is new work to be done first.
  bool CallbacksRest();
  // True if the clock was moved, or somebody was told that it stands where he wanted it.
  bool MoveTime();
  bool CompleteRequests();
  bool RunsByItself() const;
  // True if a thread got its answer a moment ago, and nothing has come of it yet.
  bool GiveWay();
  Instant NextDeadline() const;
  void SetNow(Instant now);

  std::atomic<int64_t> now_;
  std::atomic<int> waiting_ = 0;     // threads in a call of a client
  std::atomic<int> last_words_ = 0;  // those of them that are destructors

  std::mutex mutex_;
  std::condition_variable bell_;      // of the world's thread
  std::condition_variable answered_;  // of those who wait for a request
  bool rung_ = false;                 // guarded by mutex_
  bool released_ = false;             // guarded by mutex_; a thread, since time last moved
  std::deque<Work> posted_;           // guarded by mutex_
  std::vector<Request*> requests_;    // guarded by mutex_
  bool ending_ = false;               // guarded by mutex_

  // Of the world's thread.
  bool auto_advance_;
  bool paused_ = false;
  bool abandoned_ = false;
  bool impatient_ = false;  // somebody has waited for long, and nobody has moved the clock
  Member member_;
  std::vector<ClientLoop*> loops_;
  std::map<TimerId, Work> timers_;
  uint64_t next_id_ = 1;
  std::map<uint64_t, Peer> calls_;
  std::deque<Fault> faults_;
  std::vector<int64_t> muted_;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace conclave::testing
