//! Reloading: replaces the declarations while the broker runs. New and changed instances are loaded and
//! configured before a running one is stopped; unchanged ones continue.

use std::sync::Arc;

use super::{
    instance::Instance,
    plugins::{Plugins, check_names},
    report::PluginState,
    requirements::missing_plugins,
    stop::{Limit, stop_all},
};
use crate::{
    access::RuleSetter, declaration::PluginDeclaration, error::BrokerError, settings::BrokerSettings,
};

/// The result of a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// New instances.
    pub added: Vec<String>,
    /// Instances that were stopped and removed.
    pub removed: Vec<String>,
    /// Instances that were restarted because their declaration has changed.
    pub restarted: Vec<String>,
    /// Instances whose declaration is unchanged.
    pub unchanged: Vec<String>,
    /// Unchanged instances that had failed and were restarted.
    pub recovered: Vec<String>,
    /// Unchanged instances that have read their files again.
    pub refreshed: Vec<String>,
    /// Instances that could not start, or could not read their files. Other instances are not affected.
    pub errors: Vec<BrokerError>,
}

/// The action for one declaration.
enum Step {
    Keep(Arc<Instance>, PluginDeclaration),
    Start { fresh: Arc<Instance>, replaces: Option<Arc<Instance>> },
}

impl Plugins {
    /// Applies new settings and declarations.
    ///
    /// # Errors
    /// The first invalid one. Nothing has changed then.
    pub(crate) fn reload(
        &self,
        settings: &BrokerSettings,
        declarations: Vec<PluginDeclaration>,
    ) -> Result<Reloaded, BrokerError> {
        let _changing = self.lock_for_change()?;
        check_names(&declarations)?;
        let before = self.all();
        let policy = self.libraries.set_policy(settings.library_policy());
        let steps = self.prepare(&before, declarations);
        self.libraries.forget_prepared();
        let steps = steps.inspect_err(|_| {
            self.libraries.set_policy(policy);
        })?;
        self.context.apply(settings);
        Ok(self.carry_out(&before, steps))
    }

    /// Loads and configures all new and changed instances. If one fails, none is used.
    fn prepare(
        &self,
        before: &[Arc<Instance>],
        declarations: Vec<PluginDeclaration>,
    ) -> Result<Vec<Step>, BrokerError> {
        let previous = |declaration: &PluginDeclaration| {
            before.iter().find(|instance| instance.name == declaration.name)
        };
        let is_same =
            |old: &&Arc<Instance>, declaration: &PluginDeclaration| old.declaration().is_same(declaration);
        let changed: Vec<_> = declarations
            .iter()
            .filter(|declaration| previous(declaration).filter(|old| is_same(old, declaration)).is_none())
            .collect();
        self.prepare_libraries(&changed);
        let mut steps = Vec::new();
        for declaration in declarations {
            let old = previous(&declaration);
            if let Some(same) = old.filter(|old| is_same(old, &declaration)) {
                steps.push(Step::Keep(same.clone(), declaration));
                continue;
            }
            let fresh = Instance::candidate(declaration, self.context.clone());
            let configured = self.configure_one(&fresh);
            steps.push(Step::Start { fresh, replaces: old.cloned() });
            if let Err(error) = configured {
                steps.iter().for_each(Step::discard);
                return Err(error);
            }
        }
        let requirements: Vec<_> = steps.iter().map(|step| step.instance().requirements()).collect();
        if let Some(error) = missing_plugins(&requirements).into_iter().next() {
            steps.iter().for_each(Step::discard);
            return Err(error);
        }
        Ok(steps)
    }

    fn carry_out(&self, before: &[Arc<Instance>], steps: Vec<Step>) -> Reloaded {
        let mut reloaded = Reloaded::default();
        let after: Vec<_> = steps.iter().map(|step| step.instance().clone()).collect();
        let is_among = |instance: &Arc<Instance>, all: &[Arc<Instance>]| {
            all.iter().any(|other| Arc::ptr_eq(other, instance))
        };
        let leaving: Vec<_> = before.iter().filter(|old| !is_among(old, &after)).cloned().collect();
        let were_started: Vec<_> = leaving.iter().map(|old| old.state() == PluginState::Started).collect();
        let is_declared = |name: &str| after.iter().any(|instance| instance.name == name);
        reloaded.removed =
            leaving.iter().map(|old| old.name.clone()).filter(|name| !is_declared(name)).collect();
        stop_all(&leaving, "broker.toml has changed", Limit::of_change(self.context.stop_limit()));
        for old in leaving.iter().filter(|old| !is_declared(&old.name)) {
            self.context.router.retire_hooks(old.owner());
        }
        self.context.router.reopen_hooks(|of| !is_declared(&of.instance));
        self.instances.write().clone_from(&after);
        self.context
            .router
            .access
            .release_unless(|setter| after.iter().any(|instance| instance.is_setter(setter)));
        self.context.router.access.rule_locations.forget();
        let mut to_serve = Vec::new();
        for step in steps {
            match step {
                Step::Keep(instance, declaration) => {
                    instance.set_declaration(declaration);
                    reloaded.unchanged.push(instance.name.clone());
                    if matches!(instance.state(), PluginState::Failed(_)) {
                        to_serve.extend(self.recover(&instance, &mut reloaded));
                    }
                }
                Step::Start { fresh, replaces } => {
                    fresh.adopt();
                    let names =
                        if replaces.is_some() { &mut reloaded.restarted } else { &mut reloaded.added };
                    names.push(fresh.name.clone());
                    let Err(error) = self.bring_up(&fresh) else {
                        to_serve.push(fresh);
                        continue;
                    };
                    let location = fresh.location(error.key().unwrap_or_default());
                    tracing::error!(plugin = fresh.name, location, %error, "plugin could not be started");
                    reloaded.errors.push(error);
                    let was_started = |old: &Arc<Instance>| {
                        leaving
                            .iter()
                            .zip(&were_started)
                            .any(|(left, started)| *started && Arc::ptr_eq(left, old))
                    };
                    match replaces.filter(was_started) {
                        Some(old) => to_serve.extend(self.roll_back(&fresh, &old, &mut reloaded.errors)),
                        None => fresh.retry_later(),
                    }
                }
            }
        }
        // not earlier: rules must stay in force between the rules of two instances, and if the instance that
        // would set them has failed
        let may_set_rules = |setter: &RuleSetter| after.iter().any(|instance| instance.may_set_rules(setter));
        self.context.router.drop_released_rules(may_set_rules);
        to_serve.iter().for_each(|instance| instance.serve());
        self.refresh(&mut reloaded);
        // drop locations that were cached while the declarations changed
        self.context.router.access.rule_locations.forget();
        reloaded
    }

    /// Starts a failed instance at once. If that fails, a restart is scheduled according to its policy.
    fn recover(&self, instance: &Arc<Instance>, reloaded: &mut Reloaded) -> Option<Arc<Instance>> {
        instance.cancel_restart();
        match self.configure_one(instance).and_then(|()| self.bring_up(instance)) {
            Ok(()) => {
                tracing::info!(plugin = instance.name, "failed plugin restarted by reload");
                reloaded.recovered.push(instance.name.clone());
                Some(instance.clone())
            }
            Err(error) => {
                let location = instance.location(error.key().unwrap_or_default());
                tracing::error!(plugin = instance.name, location, %error, "plugin could not be started");
                reloaded.errors.push(error);
                instance.retry_later();
                None
            }
        }
    }

    /// Starts the previous version of an instance again. If that fails, a restart is scheduled.
    pub(super) fn roll_back(
        &self,
        fresh: &Arc<Instance>,
        old: &Arc<Instance>,
        errors: &mut Vec<BrokerError>,
    ) -> Option<Arc<Instance>> {
        let previous = old.previous_version();
        self.replace(fresh, &previous);
        match self.configure_loaded(&previous).and_then(|()| self.bring_up(&previous)) {
            Ok(()) => {
                tracing::warn!(plugin = previous.name, "rolled back to the previous configuration");
                Some(previous)
            }
            Err(error) => {
                tracing::error!(plugin = previous.name, %error, "rollback failed; plugin is stopped");
                errors.push(error);
                previous.retry_later();
                None
            }
        }
    }

    /// Lets unchanged instances read their files again.
    fn refresh(&self, reloaded: &mut Reloaded) {
        for instance in self.all().iter().filter(|instance| reloaded.unchanged.contains(&instance.name)) {
            if instance.state() != PluginState::Started {
                continue;
            }
            match instance.refresh() {
                Ok(()) => reloaded.refreshed.push(instance.name.clone()),
                Err(error) => {
                    let (plugin, location) = (&*instance.name, instance.location(&error.key));
                    tracing::error!(plugin, location, %error, "plugin could not read its files again");
                    reloaded.errors.push(BrokerError::Refresh { plugin: instance.name.clone(), error });
                }
            }
        }
    }
}

impl Step {
    fn instance(&self) -> &Arc<Instance> {
        match self {
            Step::Keep(instance, _) => instance,
            Step::Start { fresh, .. } => fresh,
        }
    }

    fn discard(&self) {
        if let Step::Start { fresh, .. } = self {
            fresh.discard();
        }
    }
}
