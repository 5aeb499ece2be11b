// Process: a client's process in the simulator: the production engine, over a simulated network, on
// a clock of its own that drifts. It may stand still, be cut off from members, and die.
//
// Its connections are as TCP's: what is sent into a cut is either lost, and the connection is reset
// when the cut ends, or waits and arrives, in order, when it ends; nothing comes twice. A cut
// longer than gRPC's keep-alive breaks the connection. What members say may take long to arrive. A
// paused process hears nothing, sends nothing, and its clock goes on.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conclave/base/check.h"
#include "conclave/base/prng.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/transport.h"
#include "conclave/tests/sim/recipes/history.h"
#include "conclave/tests/sim/simulation.h"

namespace conclave::sim {

class Process final : private Transport {
 public:
  // `drift_ppm`: by how much its clock is too fast.
  Process(Simulation* simulation, RecipeHistory* history, int number, int64_t drift_ppm);
  ~Process() override;

  // ---- The process.

  // A new life begins: a new engine.
  void Boot();
  // All is gone; the members see broken connections.
  void Crash();
  bool alive() const { return engine_ != nullptr; }
  bool paused() const { return paused_; }
  void Pause() { paused_ = true; }
  void Resume();
  // Something that what is under way in the engine may need, to the engine's end.
  void Keep(std::shared_ptr<const void> needed) { kept_.push_back(std::move(needed)); }
  // Counts lives; different in all processes.
  int identity() const { return number_ * 1000 + life_; }

  // Runs on the engine now, or when it goes on; never, if it dies before.
  void Run(std::function<void(Engine&)> work);
  // The same after `delay` of the world's time.
  void RunAfter(Duration delay, std::function<void(Engine&)> work);
  // Called whenever the engine has come to rest after work. Null: nobody.
  void SetAtRest(std::function<void()> at_rest) { at_rest_ = std::move(at_rest); }
  // Before it dies: what blocks on its engine runs to its end, `ended()`, in a world of its own.
  // Nothing of that gets out, nobody answers, and its time flies.
  void RunOut(const std::function<bool()>& ended);

  Engine& engine() { return *engine_; }
  Instant LocalNow() const { return flying_.value_or(ToLocal(simulation_->schedule().now())); }
  Instant ToLocal(Instant world) const;
  // The first instant of the world at which the process's clock shows at least `local`.
  Instant ToWorld(Instant local) const;

  // ---- Its connections.

  void Cut(size_t member);
  void Heal(size_t member);
  void HealAll();
  // From now on what this member says arrives so much later.
  void Slow(size_t member, Duration delay) { links_[member].delay = delay; }
  bool cut_off() const;  // from a majority of the members

 private:
  struct Call {
    size_t member = 0;
    std::string method;
    std::string request;
    Instant sent;
  };
  struct Stream {
    size_t member = 0;
    uint64_t simulated = 0;  // 0: it waits for the end of a cut
    bool renews = false;
    std::map<int64_t, std::deque<Instant>> unanswered{};  // renewals' send times, by lease
  };
  struct Link {
    bool cut = false;
    bool holds = false;  // what is sent into the cut waits
    uint64_t cuts = 0;
    Duration delay{};  // of what comes in
    Instant last_arrival{};
    std::deque<std::function<void()>> held{};  // both directions, each in its order
  };

  void StartUnary(const Unary& unary) override;
  void CancelUnary(WireId id) override;
  void OpenStream(WireId id, size_t member, std::string_view method) override;
  void OpenDownload(WireId, size_t, std::string_view, std::string_view) override {
    CONCLAVE_CHECK(false, "recipes download nothing");
  }
  void SendOnStream(WireId id, std::string_view message) override;
  void CloseStream(WireId id) override;
  void PauseStream(WireId, bool) override {}  // nobody here is too slow

  // Runs `transfer` now, or after the cut, or never.
  void Through(size_t member, std::function<void()> transfer);
  // The same for what comes in.
  void Arrive(size_t member, std::function<void()> transfer);
  void Reset(size_t member);
  void SendCall(WireId id);
  void OnAnswer(WireId id, const node::Reply* reply);
  void EndCall(WireId id, const WireStatus& status, const std::string& body);
  void EndStream(WireId id, const char* why);
  void NoteRequest(const Call& call);
  void NoteAnswer(const Call& call, const std::string& body);
  void NoteRenewal(Stream& stream, std::string_view message);
  void NoteRenewed(WireId id, const std::string& message);
  void PlanWake();

  Simulation* const simulation_;
  RecipeHistory* const history_;
  const int number_;
  const int64_t drift_ppm_;
  const Instant local_zero_;
  int life_ = 0;
  bool paused_ = false;
  std::vector<std::shared_ptr<const void>> kept_;
  std::unique_ptr<Engine> engine_;
  std::function<void()> at_rest_;
  std::deque<std::function<void(Engine&)>> inbox_;        // while it is paused
  std::optional<Instant> flying_;                         // its own time, in RunOut
  std::vector<std::pair<WireId, WireStatus>> failing_{};  // calls, in RunOut
  Instant planned_ = kNever;
  std::map<WireId, Call> calls_;
  std::set<WireId> unheard_;  // calls whose end the engine has not heard of
  std::map<WireId, Stream> streams_;
  std::vector<Link> links_;
};

}  // namespace conclave::sim
